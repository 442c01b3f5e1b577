"""One small run that all tests of the report share."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.report.pictures import pictures
from moesim.studies import Result, run


@pytest.fixture(scope="session")
def result() -> Result:
    return run("demo-tiny")


@pytest.fixture(scope="session")
def document(result: Result) -> dict[str, Any]:
    return result.to_json()


@pytest.fixture(scope="session")
def drawn(result: Result) -> dict[str, Any]:
    return pictures(result)
