"""How far simulated latencies lie from measured ones: transport in one dimension with its two sides, and four distances
that see more: the condition under which a latency was measured, which way is covered, and how sharp the plan is.

All are shares of the measured mean. x float64[n] simulated, y float64[n] measured seconds, c float64[n, d] conditions
(octaves of shape and size). The cost of a pair is |x - y|.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
MOST: Final = 1024  # rows of a kernel that enter a matrix of pairs: the assignment of 1,024 takes 0.1 s
ROUNDS: Final = 2000  # of scaling; the marginals are then right to 1e-6 where epsilon is 1 % of the mean or more
SETTLED: Final = 1e-6
OFF: Final = 1e-3  # of the mass, above which a plan is none


class Transport(NamedTuple):
    """Mean distance that mass moves from the simulated to the measured distribution, over the measured mean: the
    part that was simulated too slow, and the part too fast. Their sum is the Wasserstein-1 distance.
    """

    too_slow: float
    too_fast: float

    @property
    def wasserstein(self) -> float:
        """Both sides."""
        return self.too_slow + self.too_fast


class Samples(NamedTuple):
    """simulated, measured float64[n] shares of the measured mean; conditions float64[n, d] octaves."""

    simulated: Floats
    measured: Floats
    conditions: Floats

    @classmethod
    def of(cls, measured: Floats, simulated: Floats, conditions: Floats) -> Samples:
        """Seconds of both -> at most MOST evenly spaced rows of them."""
        mean = max(float(np.mean(measured)), 1e-300)
        some = np.unique(np.linspace(0, len(measured) - 1, min(len(measured), MOST)).astype(np.int64))
        return cls(simulated[some] / mean, measured[some] / mean, conditions[some])

    @property
    def cost(self) -> Floats:
        """float64[n, n]: simulated by measured."""
        apart: Floats = np.abs(self.simulated[:, None] - self.measured)
        return apart


def transport(measured: Floats, simulated: Floats) -> Transport:
    """Equally many seconds of both, float64[n]; in one dimension the best transport pairs them in order."""
    apart = (np.sort(simulated) - np.sort(measured)) / max(float(np.mean(measured)), 1e-300)
    return Transport(float(np.maximum(apart, 0).mean()), float(np.maximum(-apart, 0).mean()))


def conditional(samples: Samples, weight: float) -> dict[str, float]:
    """Transport that pays `weight` an octave of shape beside the seconds; of its best plan, the seconds alone.

    At weight 0 it is Wasserstein's distance, at a large one the mean absolute error of each case: a model that is right
    on the whole and wrong in every case is near by the first and far by the second.
    """
    octaves = np.abs(samples.conditions[:, None] - samples.conditions[None]).sum(axis=2)
    pairs = optimize.linear_sum_assignment(samples.cost + weight * octaves)
    return {"conditional": float(samples.cost[pairs].mean())}


def bidirectional(samples: Samples, temperature: float) -> dict[str, float]:
    """Each simulated latency to measured ones near it, and each measured one to simulated ones near it, with weights
    softmax(-cost / temperature) (Zheng and Zhou 2021, conditional transport). `covers` is large where measured
    latencies have no simulated one near, `seeks` where simulated ones have no measured one.
    """
    cost = samples.cost
    seeks, covers = (
        float((special.softmax(-cost / temperature, axis=axis) * cost).sum(axis=axis).mean()) for axis in (1, 0)
    )
    return {"bidirectional": (seeks + covers) / 2, "seeks": seeks, "covers": covers}


def entropic(samples: Samples, epsilon: float) -> dict[str, float]:
    """Cost of the plan that minimises cost - epsilon x entropy (Cuturi 2013), scaled in logarithms: Wasserstein's
    distance at epsilon 0, that of independent pairs at a large one. Raises BadInput where it does not settle.
    """
    log, cost = -samples.cost / epsilon, samples.cost
    left, right, share = np.zeros(len(cost)), np.zeros(len(cost)), -np.log(len(cost))
    for _ in range(ROUNDS):
        left = share - special.logsumexp(log + right, axis=1)
        right = share - special.logsumexp(log + left[:, None], axis=0)
        rows = np.exp(special.logsumexp(log + right, axis=1) + left)
        if np.abs(rows * len(cost) - 1).max() < SETTLED:
            break
    if (off := float(np.abs(rows * len(cost) - 1).sum() / len(cost) / 2)) > OFF:
        what = f"epsilon {epsilon:g} is too sharp: after {ROUNDS} rounds {off:.1%} of the mass is not where it belongs"
        raise BadInput(what, way_out=f"--scale {10 * epsilon:g}")
    return {"entropic": float((np.exp(log + left[:, None] + right) * cost).sum())}


def gibbs(samples: Samples, epsilon: float) -> dict[str, float]:
    """Independent pairs weighted by exp(-cost / epsilon): the entropic plan without its scaling, in one pass (weighted
    conditional flow matching). `marginals` is how far its own lie from even ones, in total variation.
    """
    weight = special.softmax(-samples.cost / epsilon)
    off = max(float(np.abs(weight.sum(axis=axis) - 1 / len(weight)).sum() / 2) for axis in (0, 1))
    return {"gibbs": float((weight * samples.cost).sum()), "marginals": off}


DISTANCES: Final[dict[str, Callable[[Samples, float], dict[str, float]]]] = {
    "conditional": conditional, "bidirectional": bidirectional, "entropic": entropic, "gibbs": gibbs,
}  # fmt: skip
