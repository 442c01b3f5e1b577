"""co_activation: experts that tokens choose together share a node, as far as the nodes' loads allow.

With kernels that send a token once to each node (DeepEP's normal dispatch) traffic is the number of distinct nodes that
a token touches. Simulated annealing on recorded tokens groups the experts of each layer; inside its node an expert is
replicated and placed as `multiwindow` does, which no token notices on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.clusters import balanced
from moesim.placement.search.gather_kernel import gather
from moesim.placement.search.samples import sampled_counts
from moesim.placement.solution import Answer
from moesim.placement.strategies.multiwindow import MultiWindow
from moesim.placement.windows import Windows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NODE_CAP = 1.05  # most load of a node over its share, where the problem sets no lower cap on ranks
HOT, COLD = 60 / 16_384, 20 / 16_384  # first and last heat: visits a token of the trace
PER_EXPERT, MOVES = 420, 1.25  # changes tried for each expert; draws up to MOVES x experts are swaps, then moves
QUIET = 1 / 11  # of the changes are tried without heat at the end


@dataclass(frozen=True)
class CoActivation:
    """Nodes first, then ranks inside them. node_cap: most load of a node over its share."""

    node_cap: float = NODE_CAP
    name: str = "co_activation"
    summary: str = "experts chosen together share a node, within a load cap (fewest nodes a token)"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput where windows are counts only."""
        if problem.train.tokens is None:
            raise BadInput("co-activation needs tokens", where=problem.train.name, way_out="a trace, not counts")
        samples = sampled_counts(problem.train, budget.stream("samples"))
        node_of_expert = first_nodes(problem)
        late = 0
        for layer in range(problem.layers if problem.nodes > 1 else 0):
            late += budget.expired
            if not budget.expired:
                _gather(problem, layer, node_of_expert[layer], budget.stream("gather", layer), self.node_cap)
        rows = [_inside(problem, samples[:, layer], node_of_expert[layer], budget) for layer in range(problem.layers)]
        return Answer(problem.place(np.stack(rows)), notes=_notes(problem, late))


def _notes(problem: PlacementProblem, late: int) -> tuple[str, ...]:
    notes = ("one node: no token touches another, experts are balanced only",) if problem.nodes == 1 else ()
    return notes + ((f"{late} layers came too late to be grouped: balanced only",) if late else ())


def first_nodes(problem: PlacementProblem) -> Ints:
    """int64[layers, experts]: nodes of even load, each with as many experts as its share of the slots."""
    slots = np.bincount(problem.node_of_rank, problem.slots_of_rank).astype(np.int64)
    count = slots * problem.experts // problem.slots
    count[np.argsort(-(slots * problem.experts % problem.slots), kind="stable")[: problem.experts - count.sum()]] += 1
    return balanced(problem.load.astype(np.float64), count, _node_caps(problem, 1.0))


def _node_caps(problem: PlacementProblem, cap: float) -> Floats:
    """float64[layers, nodes]: load of a node at `cap` times its share."""
    share = np.bincount(problem.node_of_rank, problem.speed) / problem.speed.sum()
    caps: Floats = cap * problem.load.sum(axis=1)[:, None] * share
    return caps


def _gather(
    problem: PlacementProblem, layer: int, node: Ints, random: np.random.Generator, node_cap: float
) -> None:  # fmt: skip
    """The experts of one layer, `node` int64[experts] in place."""
    assert problem.train.tokens is not None
    tokens = problem.train.tokens[layer].astype(np.int32)
    tokens[tokens >= problem.experts] = -1
    tries = PER_EXPERT * problem.experts
    expert = random.integers(0, problem.experts, tries)
    other = random.integers(0, round(problem.experts * MOVES), tries)
    moves = other >= problem.experts
    other[moves] = problem.experts + other[moves] % problem.nodes
    heat = np.geomspace(HOT, COLD, tries) * len(tokens)
    heat[round(tries * (1 - QUIET)) :] = 0.0
    slots = np.bincount(problem.node_of_rank, problem.slots_of_rank).astype(np.int64)
    cap = _node_caps(problem, min(node_cap, problem.load_cap or node_cap))[layer]
    draws, chance = np.stack([expert, other], axis=1).astype(np.int32), 1.0 - random.random(tries)
    gather(tokens, problem.load[layer].astype(np.float64), node, cap, slots, draws, chance, heat)


def _inside(problem: PlacementProblem, samples: Floats, node_of_expert: Ints, budget: Budget) -> Ints:
    """samples float64[W, experts] of one layer -> int64[slots]: each node a problem of its own, by `multiwindow`."""
    slot_expert = np.empty(problem.slots, dtype=np.int64)
    fair = samples.sum() / problem.speed.sum()
    for node in range(problem.nodes):
        ranks, members = problem.node_of_rank == node, np.flatnonzero(node_of_expert == node)
        counts = samples[:, None, members].astype(np.int64)
        cap = None
        if problem.load_cap is not None and counts.sum():
            cap = problem.load_cap * fair / (counts.sum() / problem.speed[ranks].sum())
        one = PlacementProblem(
            Windows("node", counts), np.zeros(int(ranks.sum()), dtype=np.int64), problem.slots_of_rank[ranks],
            load_cap=cap, speed=problem.speed[ranks],
        )  # fmt: skip
        inside = MultiWindow().plan(one, budget).placement.slot_expert[0]
        slot_expert[ranks[problem.slot_rank]] = members[inside]
    return slot_expert
