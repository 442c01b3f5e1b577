"""greedy: redundant slots to the experts with most load per replica, then heaviest first to the least loaded rank.

Source: DeepSeek-V3 (arXiv 2412.19437), section 3.4.2, redundant experts; the packing is longest processing time first
with room on every rank, and replicas of one expert avoid the same rank while another has room.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer

Ints = npt.NDArray[np.int64]


class Greedy:
    """One pass over the total load of the windows."""

    name, summary = "greedy", "redundant slots to the hottest experts, then heaviest first to the emptiest rank"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Layer by layer."""
        rows = [pack(replicate(load, problem.slots), load, problem.slots_of_rank) for load in problem.load]
        return Answer(problem.place(np.stack(rows)))


def replicate(load: Ints, slots: int) -> Ints:
    """int64[experts] load -> int64[experts] replicas, the next one always to the largest load per replica."""
    replicas = np.ones(len(load), dtype=np.int64)
    for _ in range(slots - len(load)):
        replicas[np.argmax(load / replicas)] += 1
    return replicas


def pack(replicas: Ints, load: Ints, slots_of_rank: Ints) -> Ints:
    """int64[slots]: experts by rank, ascending on each."""
    share = load / replicas
    by_share = np.argsort(-share, kind="stable")
    order = np.repeat(by_share, replicas[by_share])
    heap = [(0.0, rank) for rank, room in enumerate(slots_of_rank) if room]
    held: list[list[int]] = [[] for _ in slots_of_rank]
    for expert in order.tolist():
        _place(expert, float(share[expert]), heap, held, slots_of_rank)
    return np.concatenate([np.sort(np.array(experts, dtype=np.int64)) for experts in held])


def _place(expert: int, share: float, heap: list[tuple[float, int]], held: list[list[int]], room: Ints) -> None:
    skipped = []
    while heap and expert in held[heap[0][1]]:
        skipped.append(heapq.heappop(heap))
    load, rank = heapq.heappop(heap) if heap else skipped.pop(0)
    held[rank].append(expert)
    for entry in skipped:
        heapq.heappush(heap, entry)
    if len(held[rank]) < room[rank]:
        heapq.heappush(heap, (load + share, rank))
