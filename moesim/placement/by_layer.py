"""Layers that differ in slots: which layer gets how many, and how strategies plan them.

Layers whose ranks own equally many slots make a problem of their own, which any strategy that looks at one layer at a
time solves as if the others were not there. The table of the whole has EMPTY cells where a layer has fewer slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, DoesNotFit
from moesim.layout import EMPTY, Placement
from moesim.placement import objectives, strategies
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.table import pack
from moesim.placement.solution import NO_BOUND, Answer, Bound
from moesim.placement.strategies.flash import DEVIATIONS, flash_replicas

Ints = npt.NDArray[np.int64]
TOGETHER: Final = frozenset(
    ("affinity_hungarian", "affinity_bcd", "exact_chain_dp", "moetuner", "ilp", "ilp_polish", "two_resources",
     "step_time")
)  # fmt: skip  # strategies that plan layers together, or by a step of all of them
MOST_WINDOWS: Final = 8  # that slots are shared out on: packing takes time in proportion
LEVELS: Final = 2  # slots a rank, beyond the mean, that a layer may get


def answer(problem: PlacementProblem, strategy: strategies.Strategy, budget: Budget) -> Answer:
    """The strategy's answer, part by part where layers differ. Raises BadInput for one that plans layers together."""
    if not problem.layer_slots.size:
        return strategy.plan(problem, budget)
    if strategy.name in TOGETHER:
        way_out = "strategy multiwindow, or equally many slots in every layer"
        raise BadInput(f"{strategy.name} plans layers together, and here they differ in slots", way_out=way_out)
    found = []
    for _, part in parts(problem):
        found.append(strategy.plan(part, budget))
        budget.best, budget.incumbent, budget.bound = None, np.inf, NO_BOUND  # of a part only
    notes = dict.fromkeys(note for one in found for note in one.notes)
    return Answer(_joined(problem, [one.placement for one in found]), notes=tuple(notes))


def parts(problem: PlacementProblem) -> Iterator[tuple[Ints, PlacementProblem]]:
    """(numbers of layers, their problem), one for each row of slots that occurs; a budget of moves is shared out."""
    rows, part = np.unique(problem.layer_slots, axis=0, return_inverse=True)
    for number, row in enumerate(rows):
        layers = np.flatnonzero(part.ravel() == number)
        held, moves = problem.previous, problem.move_budget
        yield (
            layers,
            replace(
                problem,
                train=problem.train.of_layers(layers),
                slots_of_rank=row,
                layer_slots=np.empty((0, 0), dtype=np.int64),
                previous=None if held is None else held.of_layers(layers),
                move_budget=None if moves is None else moves * len(layers) // problem.layers,
                memory=None,
                clock=None,
            ),
        )


def bound(problem: PlacementProblem, budget: Budget) -> Bound:
    """Of the parts, layer by layer, where the objective is a mean of layers that stand alone."""
    objective = problem.objective
    if not problem.layer_slots.size:
        return objective.bound(problem, budget)
    if problem.objective.name != "makespan":
        return NO_BOUND
    found = [(len(layers), objective.bound(part, budget)) for layers, part in parts(problem)]
    return Bound(sum(count * one.value for count, one in found) / problem.layers, found[0][1].kind)


def _joined(problem: PlacementProblem, placements: list[Placement]) -> Placement:
    """Placements of the parts -> one of all layers."""
    width = int(problem.layer_slots.sum(axis=1).max())
    expert = np.full((problem.layers, width), EMPTY, dtype=np.int32)
    rank = np.full((problem.layers, width), problem.ranks - 1, dtype=np.int32)
    for (layers, _), one in zip(parts(problem), placements, strict=True):
        expert[layers, : one.num_slots], rank[layers, : one.num_slots] = one.slot_expert, one.slot_rank
    return Placement(expert, rank, problem.experts, problem.ranks)


def allotted(problem: PlacementProblem, redundant: int, budget: Budget) -> PlacementProblem:
    """The problem with `redundant` slots a layer on average, where they help most; every rank owns equally many in a
    layer, and no more in all than it would of equal layers.

    What a layer gains is taken from the packing of `flash` at each number of slots, on the windows that are planned on
    without resampling; the sum over layers is least (a knapsack, solved exactly). Raises DoesNotFit where there is
    nothing to share out.
    """
    least = -(-problem.experts // problem.ranks)
    spare = problem.layers * (problem.experts + redundant) // problem.ranks - problem.layers * least
    if spare <= 0:
        raise DoesNotFit(
            f"{redundant} redundant slots a layer leave none to share out over {problem.layers} layers of "
            f"{problem.ranks} GPUs", where="--by-layer", way_out=f"--redundant {_fills(problem, least)} or more",
        )  # fmt: skip
    levels = min(spare // problem.layers + LEVELS, spare, problem.experts - least)
    value = np.stack([_value(problem, least + extra, budget) for extra in range(levels + 1)])
    each = least + knapsack(value, spare)
    rows = np.repeat(each[:, None], problem.ranks, axis=1)
    return replace(problem, layer_slots=rows, slots_of_rank=rows.max(axis=0))


def _fills(problem: PlacementProblem, least: int) -> int:
    """Redundant slots with which one layer gets a slot more on every GPU."""
    return least * problem.ranks - problem.experts + -(-problem.ranks // problem.layers)


def _value(problem: PlacementProblem, slots: int, budget: Budget) -> npt.NDArray[np.float64]:
    """float64[layers]: max/mean with that many slots on every rank."""
    alike = np.full(problem.ranks, slots, dtype=np.int64)
    one = replace(
        problem,
        slots_of_rank=alike,
        memory=None,
        load_cap=None,
        previous=None,
        move_budget=None,
        objective=objectives.find("makespan"),
    )
    counts, rows = _few(problem.train.counts).astype(np.float64), []
    replicas = flash_replicas(one, counts)
    for layer in range(one.layers):
        table = pack(one, np.ascontiguousarray(counts[:, layer].T), replicas[layer], DEVIATIONS)
        rows.append(table.slot_expert)
        budget.say(f"what {slots} slots a GPU are worth: layer {layer + 1} of {one.layers}")
    return objectives.find("makespan").evaluate(one, one.place(np.stack(rows)), one.train)


def _few(counts: Ints) -> Ints:
    """int64[W, layers, experts] -> at most MOST_WINDOWS of them, neighbours added up."""
    return np.stack([part.sum(axis=0) for part in np.array_split(counts, min(len(counts), MOST_WINDOWS))])


def knapsack(value: npt.NDArray[np.float64], spare: int) -> Ints:
    """value float64[levels + 1, layers] -> int64[layers]: a level each, `spare` in all at most, with the least sum."""
    levels, layers = len(value) - 1, value.shape[1]
    best, chosen = np.zeros(spare + 1), np.zeros((layers, spare + 1), dtype=np.int64)
    for layer in range(layers):
        tried = np.full((levels + 1, spare + 1), np.inf)
        for level in range(levels + 1):
            tried[level, level:] = best[: spare + 1 - level] + value[level, layer]
        chosen[layer], best = tried.argmin(axis=0), tried.min(axis=0)
    result, left = np.zeros(layers, dtype=np.int64), spare
    for layer in reversed(range(layers)):
        result[layer] = chosen[layer, left]
        left -= result[layer]
    return result
