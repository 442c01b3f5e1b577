"""Rungs of the ladder -> parts of the step: no part is negative, and together they are the step, to the tick."""

from __future__ import annotations

from collections.abc import Iterable

from moesim.units import from_ps

EFFECT = "schedule_effect_s"


ORDER = (
    "ideal_compute_s", "imbalance_s", "exposed_comm_s", "interference_s", "contention_s", "fault_s", "bubble_s",
    "other_s",
)  # fmt: skip


def breakdown(rungs: Iterable[tuple[str, int | None]]) -> dict[str, float | None]:
    """(name, ps of the step with one thing more of it real; None: not played), in order -> name -> seconds of its part.

    A part is what its rung adds. Where a rung ends earlier than the one before it (an aborted transfer is not waited
    for, a late flow leaves a link to another, `network.window` merges completions), its part is 0 and what was gained
    is in `schedule_effect_s`, the only part with a sign: 0 or less.
    """
    found: dict[str, int | None] = {"bubble_s": 0}
    before = gained = 0
    for name, ticks in rungs:
        found[name] = None if ticks is None else max(ticks - before, 0)
        gained += 0 if ticks is None else min(ticks - before, 0)
        before = before if ticks is None else ticks
    shown = {name: found[name] for name in ORDER if name in found} | {EFFECT: gained}
    return {name: None if ticks is None else float(from_ps(ticks)) for name, ticks in shown.items()}
