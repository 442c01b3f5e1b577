"""flash: balance mean + z standard deviations of each rank's load (policy FlashLB of vllm-project/vllm-ascend).

A rank's deviation counts how its experts vary together, so experts that peak in the same windows part ways.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.replication import replicate
from moesim.placement.search.samples import sampled_counts
from moesim.placement.search.table import pack
from moesim.placement.solution import Answer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DEVIATIONS = 2.0  # z; the highest of n normal loads is expected at sqrt(2 ln n): 2.0 for 8 ranks, 2.9 for 64


class Flash:
    """Replicas by the experts' own mean + z deviations, ranks by their sums'."""

    name, summary = "flash", "balances mean + z standard deviations of each rank (FlashLB)"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """The layers one by one."""
        samples = sampled_counts(problem.train, budget.stream("samples"))
        replicas, rows = flash_replicas(problem, samples), []
        for layer in range(problem.layers):
            z = 0.0 if budget.expired else DEVIATIONS
            rows.append(pack(problem, np.ascontiguousarray(samples[:, layer].T), replicas[layer], z).slot_expert)
        return Answer(problem.place(np.stack(rows)))


def flash_replicas(problem: PlacementProblem, samples: Floats) -> Ints:
    """samples float64[W, layers, experts] -> int64[layers, experts]: slots by mean + z deviations of each expert."""
    wanted = samples.mean(axis=0) + DEVIATIONS * samples.std(axis=0)
    return replicate(wanted, problem.slots - problem.experts, problem.ranks, problem.relief)
