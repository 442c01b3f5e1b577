"""Validation: predictions beside published measurements. A suite is one file here and one line in SUITES."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from moesim.errors import unknown_name
from moesim.studies.validation import collectives, kernels, network, papers, serving, steps, training
from moesim.studies.validation.everything import Everything, everything
from moesim.studies.validation.validation import Validation

Suite = Callable[[Path | None], Validation]
SUITES: Final[Mapping[str, Suite]] = {
    "network": network.validate,
    "kernels": kernels.validate,
    "collectives": collectives.validate,
    "steps": steps.validate,
    "serving": serving.validate,
    "training": training.validate,
    "papers": papers.validate,
}
SLOW: Final = ("steps", "serving")  # minutes: not part of `all` unless asked for


def validate(suite: str, data: Path | None = None) -> Validation:
    """The errors of a suite on its shipped measurements, or on a file in the same columns. Raises BadInput."""
    if suite not in SUITES:
        raise unknown_name("validation suite", suite, SUITES)
    return SUITES[suite](data)


def validate_all(*, steps: bool) -> Everything:
    """Every suite on its shipped measurements, operator by operator; `steps`: whole steps too, which takes minutes."""
    return everything({name: suite(None) for name, suite in SUITES.items() if steps or name not in SLOW})


__all__ = ["SUITES", "Everything", "Validation", "validate", "validate_all"]
