"""The page of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from moesim.errors import BadInput
from moesim.report.drawing import one_document, page_of
from moesim.studies.sweeping import Sweep
from moesim.studies.sweeping.sweep import Front

MOST: Final = 2000  # points of a page: beyond it a browser is slow, and lines are a blot


def sweep_page(found: Sweep, metrics: Sequence[str], front: Front | None) -> str:
    """Points as lines, two axes as a heatmap, the front, a table of each. Raises BadInput for too many points."""
    if len(found.points) > MOST:
        raise BadInput(f"{len(found.points)} points are too many for a page, {MOST} at most", where="--report",
                       way_out=f"{found.folder}/results.csv")  # fmt: skip
    document = found.to_json(front)
    there = {name for row in document["points"] for name in row}
    goals = [goal.metric for goal in front.goals] if front else []
    shown = [name for name in dict.fromkeys((*goals, *metrics)) if name in there]
    ways = ", ".join(f"{goal.metric} {'high' if goal.sign > 0 else 'low'}" for goal in front.goals) if front else ""
    drawn = {
        "document": document, "keys": found.plan.keys, "metrics": shown, "goals": goals, "ways": ways,
        "title": found.title(),
    }  # fmt: skip
    return page_of(f"moesim sweep: {found.plan.subject.name}", one_document(drawn), "panels.js", "sweep.js")
