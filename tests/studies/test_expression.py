"""`--assert`: a small grammar, evaluated without Python's."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.errors import BadInput, TargetMissed
from moesim.studies.expression import Expression

DOCUMENT: dict[str, Any] = {
    "metrics": {"step_time_s": {"value": 0.02, "unit": "s"}, "mfu": {"value": 0.4, "unit": "1"}},
    "breakdown": {"exposed_comm_s": 0.005, "contention_s": None},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("step_time_s < 0.05", True), ("step_time_s >= 0.05", False), ("0.01 < step_time_s < 0.03", True),
        ("exposed_comm_s / step_time_s <= 0.25 and mfu > 0.3", True), ("not mfu > 0.3", False),
        ("mfu < 0.3 or -mfu < -0.39", True), ("step_time_s * 1e3 - 20 == 0", True), ("mfu != 0.4", False),
    ],
)  # fmt: skip
def test_comparisons_of_metrics_and_rungs(text: str, holds: bool) -> None:
    assert (Expression(text).check(DOCUMENT) is None) == holds


def test_a_miss_shows_the_values() -> None:
    missed = Expression("step_time_s < 0.01 and mfu > 0.3").check(DOCUMENT)
    assert isinstance(missed, TargetMissed)
    assert "mfu = 0.4, step_time_s = 0.02" in str(missed)


@pytest.mark.parametrize(
    "text",
    [
        "", "mfu", "mfu <", "__import__('os') == 0", "mfu.real < 1", "[mfu] == 1", "mfu < '1'", "mfu ** 9 < 1",
        "(lambda: 1)() == 1", "True == 1", "mfu < 1; mfu", "(" * 300 + "mfu" + ")" * 300 + " < 1",
        "mfu < 1 " + "or mfu < 1 " * 99,
        "mfu if 1 else 0 < 1", "f'{mfu}' == 1", "mfu in mfu", "mfu is mfu", "x := 1", "mfu < 1j", "\x00",
    ],
)  # fmt: skip
def test_everything_else_is_refused_before_a_run_starts(text: str) -> None:
    with pytest.raises(BadInput, match="--assert"):
        Expression(text)


def test_unknown_names_and_rungs_that_were_not_played_are_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'step_time_s'"):
        Expression("step_time < 1").check(DOCUMENT)
    with pytest.raises(BadInput, match="not played"):
        Expression("contention_s < 1").check(DOCUMENT)
    with pytest.raises(BadInput, match="divides by zero"):
        Expression("mfu / 0 < 1").check(DOCUMENT)
