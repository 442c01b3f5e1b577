"""Sobol: which share of the variance an input brings alone, and with all that it takes part in.

Estimators of Saltelli et al., Computer Physics Communications 181 (2010), as in scipy.stats.sobol_indices.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from scipy import stats

from moesim.errors import BadInput
from moesim.studies.sensitivity.method import Floats

FEWEST: Final = 8  # below, resamples of the bootstrap may have no variance


class Sobol:
    """number (a power of two) x (inputs + 2) runs."""

    summary = "first: share of the variance by the input alone; total: with all interactions that it takes part in"
    main = "total"
    share = True

    def shares(self, inputs: int, number: int, seed: int) -> Floats:
        """See Method: A, B, then A with each column of B in turn. Raises BadInput."""
        if number < FEWEST or number & (number - 1):
            enough = max(1 << number.bit_length(), FEWEST)
            raise BadInput(f"{number} is no power of two, {FEWEST} or more", where="--points", way_out=f"{enough}")
        both = stats.qmc.Sobol(2 * inputs, rng=np.random.default_rng([seed, inputs])).random(number)
        a, b = both[:, :inputs], both[:, inputs:]
        mixed = [np.where(np.arange(inputs) == one, b, a) for one in range(inputs)]
        return np.concatenate([a, b, *mixed])

    def indices(self, shares: Floats, values: Floats, seed: int) -> dict[str, Floats]:
        """See Method; *_error: half of the 95 % interval, by quantiles of a bootstrap, as scipy has no number
        for an input without effect.
        """
        inputs = shares.shape[1]
        parts = values.reshape(inputs + 2, -1)
        if np.ptp(values) == 0:
            return {name: np.zeros(inputs) for name in ("first", "total", "first_error", "total_error")}
        mixed = parts[2:] if inputs > 1 else np.repeat(parts[2:], 2, axis=0)  # scipy has no answer for one input alone
        given: Any = {"f_A": parts[:1], "f_B": parts[1:2], "f_AB": mixed[:, None, :]}
        found = stats.sobol_indices(func=given, n=parts.shape[1], rng=np.random.default_rng(seed))
        with warnings.catch_warnings(action="ignore"):
            boot = found.bootstrap(confidence_level=0.95, n_resamples=499)
        half = [
            np.diff(np.nanquantile(each.bootstrap_distribution, (0.025, 0.975), axis=-1), axis=0) / 2
            for each in (boot.first_order, boot.total_order)
        ]
        names = ("first", "total", "first_error", "total_error")
        every = (found.first_order, found.total_order, *half)
        return {
            name: np.asarray(one, dtype=np.float64).ravel()[:inputs] for name, one in zip(names, every, strict=True)
        }
