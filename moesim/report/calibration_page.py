"""The page of `moesim calibrate check --report`: residuals of every kernel, in one file."""

from __future__ import annotations

from typing import Any, Final

from moesim.calibration.check import Checked, OperatorCheck
from moesim.calibration.fit_operator import sample
from moesim.report.drawing import panels_of

POINTS: Final = 2000  # drawn of one kernel


def calibration_page(found: Checked) -> str:
    """A self-contained HTML page; its numbers stand in it as JSON."""
    document = found.to_json()
    data = {
        "profile": found.profile,
        "way": found.way,
        "metrics": document["metrics"],
        "operators": [_operator(one) for one in found.operators],
    }
    return panels_of(f"moesim calibrate: {found.profile}", data, "calibration.js")


def _operator(one: OperatorCheck) -> dict[str, Any]:
    rows = sample(len(one.records), POINTS)
    points = {
        "seconds": [float(f"{value:.4g}") for value in one.predicted[rows]],
        "residual": [round(float(value), 4) for value in one.errors.log[rows]],
        "group": [str(name) for name in one.records["distribution"][rows]],
    }
    return {"name": one.name, "rows": len(one.records), "points": points, "worst": one.worst()}
