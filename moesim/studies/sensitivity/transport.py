"""Optimal transport: how far the whole distribution of an answer moves once an input is known, not its variance alone.

index = E[W2(answer, answer | input)^2] / (2 Var), between 0 (the input tells nothing) and 1 (it tells all): Borgonovo,
Figalli, Plischke, Savare, "Global sensitivity analysis via optimal transport", Management Science 2024. For one answer
W2 is the distance of quantiles, and the index splits into the move of the mean (half of Sobol's first order) and the
rest. The input's range is cut into classes of equally many runs.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from moesim import streams
from moesim.errors import BadInput
from moesim.studies.sensitivity.method import Floats
from moesim.studies.sweeping.design import spread

FEWEST: Final = 20  # runs: four classes of five
QUANTILES: Final = 200


class Transport:
    """`number` runs in all, a Latin hypercube, however many inputs there are."""

    summary = (
        "transport: mean squared distance between the answer's distribution and the one given the input, over twice "
        "the variance; noise: what an input without effect would show"
    )
    main = "transport"
    share = True

    def shares(self, inputs: int, number: int, seed: int) -> Floats:
        """See Method. Raises BadInput."""
        if number < FEWEST:
            raise BadInput(f"{number} runs are too few", where="--points", way_out=f"{FEWEST} or more")
        return spread(inputs, number, seed, latin=True)

    def indices(self, shares: Floats, values: Floats, seed: int) -> dict[str, Floats]:
        """See Method."""
        random = streams.stream(seed, "sensitivity", "transport")
        found = [transport(column, values) for column in shares.T]
        noise = [np.mean([transport(random.permutation(c), values)[0] for _ in range(20)]) for c in shares.T]
        return {
            "transport": np.array([whole for whole, _ in found]),
            "of_the_mean": np.array([mean for _, mean in found]),
            "noise": np.array(noise),
        }


def transport(share: Floats, values: Floats) -> tuple[float, float]:
    """share float64[n] of one input, values float64[n] -> (index, the part of it that is the mean's move)."""
    variance = float(values.var())
    if variance == 0:
        return 0.0, 0.0
    at = (np.arange(QUANTILES) + 0.5) / QUANTILES
    order = np.argsort(share, kind="stable")
    classes = np.array_split(order, classes_for(len(values)))
    whole = np.quantile(values, at)
    moved = [float(np.mean((np.quantile(values[rows], at) - whole) ** 2)) for rows in classes]
    means = [float((values[rows].mean() - values.mean()) ** 2) for rows in classes]
    weight = np.array([len(rows) for rows in classes]) / len(values)
    return float(weight @ moved / (2 * variance)), float(weight @ means / (2 * variance))


def classes_for(runs: int) -> int:
    """Classes: as many as there are runs in each, about."""
    return max(4, math.isqrt(runs))
