"""Morris: how far the answer moves when one input at a time takes a long step; a few runs an input.

Sources: Morris, Technometrics 33 (1991); mu* of Campolongo, Cariboni, Saltelli, Env. Modelling & Software 22 (2007).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from moesim import streams
from moesim.errors import BadInput
from moesim.studies.sensitivity.method import Floats

LEVELS: Final = 4
STEP: Final = LEVELS / (2 * (LEVELS - 1))  # of the range: every level is then reached as often as any other


class Morris:
    """`number` trajectories of inputs + 1 runs each."""

    summary = "mu_star: mean size of the move by a step of 2/3 of the range, over that step; sigma: how it varies"
    main = "mu_star"
    share = False

    def shares(self, inputs: int, number: int, seed: int) -> Floats:
        """See Method: trajectories one after the other, each input moved once in a random order. Raises BadInput."""
        if number < 2:
            raise BadInput("one trajectory does not tell how moves vary", where="--points", way_out="--points 8")
        random = streams.stream(seed, "sensitivity", "morris")
        return np.concatenate([self._trajectory(inputs, random) for _ in range(number)])

    def _trajectory(self, inputs: int, random: np.random.Generator) -> Floats:
        start = random.integers(0, LEVELS // 2, inputs) / (LEVELS - 1)
        up = random.random(inputs) < 0.5
        rows = np.tile(np.where(up, start, start + STEP), (inputs + 1, 1))
        for place, moved in enumerate(random.permutation(inputs), start=1):
            rows[place:, moved] += STEP if up[moved] else -STEP
        inside: Floats = np.clip(rows, 0.0, 1.0)
        return inside

    def indices(self, shares: Floats, values: Floats, seed: int) -> dict[str, Floats]:
        """See Method: in units of the answer, for the whole range of an input."""
        inputs = shares.shape[1]
        moves = np.diff(shares.reshape(-1, inputs + 1, inputs), axis=1)
        steps = np.diff(values.reshape(-1, inputs + 1), axis=1)
        which = np.abs(moves).argmax(axis=2)
        size = np.take_along_axis(moves, which[:, :, None], axis=2)[:, :, 0]
        effects = np.empty((len(which), inputs))
        np.put_along_axis(effects, which, steps / size, axis=1)
        return {
            "mu_star": np.abs(effects).mean(axis=0),
            "mu": effects.mean(axis=0),
            "sigma": effects.std(axis=0, ddof=1),
        }
