"""Sobol: which share of the variance an input brings alone, and with all that it takes part in.

Estimators of Saltelli et al., Computer Physics Communications 181 (2010), as in scipy.stats.sobol_indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from moesim.errors import BadInput
from moesim.studies.sensitivity.method import Floats


class Sobol:
    """number (a power of two) x (inputs + 2) runs."""

    summary = "first: share of the variance by the input alone; total: with all interactions that it takes part in"
    main = "total"
    share = True

    def shares(self, inputs: int, number: int, seed: int) -> Floats:
        """See Method: A, B, then A with each column of B in turn. Raises BadInput."""
        if number < 2 or number & (number - 1):
            raise BadInput(f"{number} is no power of two", where="--points", way_out=f"{1 << number.bit_length()}")
        both = stats.qmc.Sobol(2 * inputs, rng=np.random.default_rng([seed, inputs])).random(number)
        a, b = both[:, :inputs], both[:, inputs:]
        mixed = [np.where(np.arange(inputs) == one, b, a) for one in range(inputs)]
        return np.concatenate([a, b, *mixed])

    def indices(self, shares: Floats, values: Floats, seed: int) -> dict[str, Floats]:
        """See Method; *_error: half of the 95 % interval, from a bootstrap."""
        inputs = shares.shape[1]
        parts = values.reshape(inputs + 2, -1)
        if np.ptp(values) == 0:
            return {name: np.zeros(inputs) for name in ("first", "total", "first_error", "total_error")}
        given: Any = {"f_A": parts[:1], "f_B": parts[1:2], "f_AB": parts[2:, None, :]}
        found = stats.sobol_indices(func=given, n=parts.shape[1], rng=np.random.default_rng(seed))
        boot = found.bootstrap(confidence_level=0.95, n_resamples=499)
        half = [
            (each.confidence_interval.high - each.confidence_interval.low) / 2
            for each in (boot.first_order, boot.total_order)
        ]
        return {
            "first": np.ravel(found.first_order), "total": np.ravel(found.total_order),
            "first_error": np.ravel(half[0]), "total_error": np.ravel(half[1]),
        }  # fmt: skip
