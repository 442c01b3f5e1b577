"""Placement: which expert stands in which slot. Problem, strategies, objectives, certificates, held-out scores."""

from __future__ import annotations

from moesim.placement.budget import Budget, Progress
from moesim.placement.clock import StepClock
from moesim.placement.moves import count_moves
from moesim.placement.problem import Memory, PlacementProblem
from moesim.placement.solution import NO_BOUND, Answer, Bound, Solution
from moesim.placement.solve import judge, plan, solve
from moesim.placement.strategies.eplb import rebalance_experts
from moesim.placement.windows import Windows

__all__ = [
    "NO_BOUND",
    "Answer",
    "Bound",
    "Budget",
    "Memory",
    "PlacementProblem",
    "Progress",
    "Solution",
    "StepClock",
    "Windows",
    "count_moves",
    "judge",
    "plan",
    "rebalance_experts",
    "solve",
]
