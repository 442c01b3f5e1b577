"""Chain: what stands where in consecutive layers, and what the moves of tokens between them cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.placement.levels import hops

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Chain:
    """What a strategy moves about: items, one a slot. Without redundant slots items are experts.

    expert int64[layers, S]: of each item; flow float32[layers - 1, S, S] moves between items; load float64[layers, S];
    room int64[ranks] items of a rank; cap float64[layers, ranks] load of a rank; distance float32[ranks, ranks] hops.
    """

    expert: Ints
    flow: Singles
    load: Floats
    room: Ints
    cap: Floats
    distance: Singles

    @staticmethod
    def of(problem: PlacementProblem) -> Chain:
        """The redundant slots go to the heaviest load per replica; replicas share load and moves evenly, so that the
        cost is the objective's under even dispatch. Raises BadInput where windows are counts only.
        """
        expert = replicated(problem.load, problem.slots)
        layer = np.arange(problem.layers)[:, None]
        share = 1.0 / (expert[:, :, None] == expert[:, None, :]).sum(axis=2)
        flow = _expand(problem.train.flow, expert, share)
        fair = problem.load.sum(axis=1)[:, None] * problem.speed / problem.speed.sum()
        cap = fair * (np.inf if problem.load_cap is None else problem.load_cap)
        distance = hops(problem.node_of_rank, rails=problem.objective.name == "rail_transitions")
        load = problem.load[layer, expert] * share
        return Chain(expert, flow, load, problem.slots_of_rank, cap, distance.astype(np.float32))

    @cached_property
    def total(self) -> float:
        """Moves in all."""
        return float(self.flow.sum(dtype=np.float64))

    def pull(self, rank: Ints, layers: Ints) -> Singles:
        """rank int[all layers, S], layers int[B] -> float32[B, S, ranks]: hops of an item's moves if it stood there and
        all items of the neighbouring layers stayed where they are.
        """
        near = self.distance[rank]  # [layers, S, ranks]: from any rank to where the item stands
        cost = np.zeros((len(layers), *near.shape[1:]), dtype=np.float32)
        first, last = layers > 0, layers < len(rank) - 1
        cost[first] += self.flow[layers[first] - 1].transpose(0, 2, 1) @ near[layers[first] - 1]
        cost[last] += self.flow[layers[last]] @ near[layers[last] + 1]
        return cost

    def cost(self, rank: Ints) -> float:
        """rank int[layers, S] of each item -> hops a move, what the objective says of it under even dispatch."""
        near = self.distance[rank[1:]]  # [layers - 1, S, ranks]
        moved = np.take_along_axis(self.flow @ near, rank[:-1, :, None], axis=2)
        return float(moved.sum(dtype=np.float64)) / max(self.total, 1.0)

    def excess(self, rank: Ints) -> float:
        """Most load of a rank above its cap, 0 where all caps are kept."""
        return float(np.maximum(self.rank_load(rank) - self.cap * (1 + 1e-12), 0).max())

    def rank_load(self, rank: Ints) -> Floats:
        """float64[layers, ranks]."""
        ranks = len(self.room)
        return np.stack([np.bincount(row, load, ranks) for row, load in zip(rank, self.load, strict=True)])

    def placement(self, problem: PlacementProblem, rank: Ints) -> Placement:
        """rank int[layers, S] of each item -> Placement."""
        return problem.place(np.take_along_axis(self.expert, np.argsort(rank, axis=1, kind="stable"), axis=1))


def replicated(load: Ints, slots: int) -> Ints:
    """load int64[layers, experts] -> int64[layers, slots]: each expert once, then one more of whichever has most load
    per replica (the greedy rule of DeepSeek-V3, arXiv 2412.19437, section 3.4.2), in ascending order.
    """
    layers, experts = load.shape
    count, row = np.ones((layers, experts), dtype=np.int64), np.arange(layers)
    for _ in range(slots - experts):
        count[row, (load / count).argmax(axis=1)] += 1
    return np.stack([np.repeat(np.arange(experts), each) for each in count])


def _expand(flow: Floats, expert: Ints, share: Floats) -> Singles:
    """Moves between experts -> moves between their replicas."""
    if expert.shape[1] == flow.shape[1]:
        return flow.astype(np.float32)
    pairs = [
        flow[layer][np.ix_(expert[layer], expert[layer + 1])] * share[layer][:, None] * share[layer + 1]
        for layer in range(len(flow))
    ]
    return np.stack(pairs).astype(np.float32)
