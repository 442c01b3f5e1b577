"""The page of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from moesim.errors import BadInput
from moesim.report.drawing import panels_of
from moesim.studies.load import as_yaml
from moesim.studies.sweeping import Sweep
from moesim.studies.sweeping.sweep import Front

SCENARIO: Final = "scenario.yaml"  # what is varied, as it stands on the page
MOST: Final = 2000  # points of a page: beyond it a browser is slow, and lines are a blot


def sweep_page(found: Sweep, metrics: Sequence[str], front: Front | None, command: str) -> str:
    """Points as lines, two axes as a heatmap, the front, a table of each; command: that plays SCENARIO again. Raises
    BadInput for too many points.
    """
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
        "title": found.title(), "command": command, "scenarios": {SCENARIO: as_yaml(found.plan.subject.base)},
    }  # fmt: skip
    return panels_of(f"moesim sweep: {found.plan.subject.name}", drawn, "sweep.js")
