"""Validation: predictions beside published measurements. A suite is one file here and one line in SUITES."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from moesim.errors import unknown_name
from moesim.studies.validation import collectives, network
from moesim.studies.validation.validation import Validation

Suite = Callable[[Path | None], Validation]
SUITES: Final[Mapping[str, Suite]] = {
    "network": network.validate,
    "collectives": collectives.validate,
}


def validate(suite: str, data: Path | None = None) -> Validation:
    """The errors of a suite on its shipped measurements, or on a file in the same columns. Raises BadInput."""
    if suite not in SUITES:
        raise unknown_name("validation suite", suite, SUITES)
    return SUITES[suite](data)


__all__ = ["SUITES", "Validation", "validate"]
