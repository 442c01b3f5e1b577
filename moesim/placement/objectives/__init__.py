"""Objectives: one file and one line in REGISTRY each."""

from __future__ import annotations

from moesim.errors import pick
from moesim.placement.objectives.makespan import Makespan
from moesim.placement.objectives.nodes_touched import NodesTouched
from moesim.placement.objectives.objective import Objective
from moesim.placement.objectives.overlap import Overlap
from moesim.placement.objectives.step_time import StepTime
from moesim.placement.objectives.transitions import Transitions

_ALL: tuple[Objective, ...] = (
    Makespan(),
    NodesTouched(),
    Overlap(),
    StepTime(),
    Transitions(),
    Transitions("rail_transitions", True),
)
REGISTRY: dict[str, Objective] = {objective.name: objective for objective in _ALL}


def find(name: str, where: str = "") -> Objective:
    """The objective of that name. Raises BadInput with the known names."""
    return pick("objective", name, REGISTRY, where=where)


__all__ = ["REGISTRY", "Objective", "find"]
