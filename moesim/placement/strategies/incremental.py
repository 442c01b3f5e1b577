"""incremental: what stands now, changed where a moved expert gains most, until the budget of moves is spent.

Each layer has a path of greedy steps; the budget goes to the steps, over all layers, that gain most per move.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.search import nudge
from moesim.placement.search.samples import sampled_counts
from moesim.placement.solution import Answer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WINDOWS = 16  # resampled windows that are looked at
FURTHER = 2  # steps of a layer's path, in its even parts of the budget


class Incremental:
    """Greedy steps on the previous placement."""

    name, summary = "incremental", "the previous placement, changed where a move gains most, within a budget of moves"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput without a previous placement of the same slots."""
        now = problem.previous
        if now is None or now.num_slots != problem.slots or (now.slot_rank != problem.slot_rank).any():
            same = f"{now.num_slots - now.num_experts} redundant slots, as it has, or " if now else ""
            raise BadInput(
                "incremental needs a previous placement with the slots of the problem",
                way_out=f"{same}strategy multiwindow",
            )
        limit = problem.slots * problem.layers if problem.move_budget is None else problem.move_budget
        samples = sampled_counts(problem.train, budget.stream("samples"))[:WINDOWS]
        steps = FURTHER * max(-(-limit // problem.layers), 1)
        paths = [
            _path(problem, samples[:, layer], layer, 0 if budget.expired else steps)
            for layer in range(len(now.slot_expert))
        ]
        taken = _spend(paths, limit)
        return Answer(problem.place(np.stack([path[0][step] for path, step in zip(paths, taken, strict=True)])))


Path = tuple[Ints, Floats, Ints]  # tables [n + 1, slots], values [n + 1], moves [n + 1]


def _path(problem: PlacementProblem, samples: Floats, layer: int, steps: int) -> Path:
    """samples float64[W, experts] of one layer -> its greedy steps."""
    assert problem.previous is not None
    fair = np.maximum(samples.sum(axis=1), 1.0) / problem.speed.sum()
    counts, replicas = np.ascontiguousarray((samples / fair[:, None]).T), problem.previous.replicas[layer].copy()
    ptr = np.concatenate([[0], np.cumsum(problem.slots_of_rank)])
    table = problem.previous.slot_expert[layer].astype(np.int64)
    tables, values, moves = nudge.improve(counts, replicas, table, ptr, 1 / problem.speed, steps)
    return tables, values / len(samples), moves


def _spend(paths: list[Path], limit: int) -> list[int]:
    """Steps to take on each path: always the stretch that gains most per move, as long as the budget lasts."""
    taken, queue = [0] * len(paths), [_next(path, 0, layer) for layer, path in enumerate(paths)]
    heapq.heapify(queue)
    while queue:
        gain, layer, step = heapq.heappop(queue)
        more = int(paths[layer][2][step] - paths[layer][2][taken[layer]])
        if gain >= 0 or more > limit:
            continue
        limit, taken[layer] = limit - more, step
        heapq.heappush(queue, _next(paths[layer], step, layer))
    return taken


def _next(path: Path, step: int, layer: int) -> tuple[float, int, int]:
    """(minus the gain per move, layer, step) of the best stretch from `step` on; no gain at the end."""
    _, values, moves = path
    if step + 1 == len(values):
        return 0.0, layer, step
    rate = (values[step] - values[step + 1 :]) / (moves[step + 1 :] - moves[step])
    best = int(rate.argmax())
    return -float(rate[best]), layer, step + 1 + best
