"""Expert shares, and where the hot experts sit: they cluster, which is what loads a rank of contiguous experts.

Independent draws give a contiguous imbalance at 32 ranks of 1.5 to 2.0 where DeepSeek-V3's files say 2.0 to 3.0. So
the shares of a layer are drawn first and then arranged, by swaps of two experts, until the imbalance at each number of
ranks and the correlation with the layer before are those asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SWAPS = 1500
CORRELATION_WEIGHT = 2.0


def shares_from_quantiles(levels: Floats, quantiles: Floats, experts: int) -> Floats:
    """levels [Q], quantiles [L, Q] -> [L, experts] ascending shares with mean 1, by linear interpolation."""
    at = np.linspace(0.0, 1.0, experts)
    shares = np.stack([np.interp(at, levels, row) for row in quantiles])
    result: Floats = shares / shares.mean(axis=1, keepdims=True)
    return result


def contiguous_imbalance(shares: Floats, ranks: int) -> Floats:
    """[..., E] shares -> [...] max over mean of the ranks' loads, expert e on rank e * ranks // E."""
    experts = shares.shape[-1]
    if experts % ranks == 0:
        load = shares.reshape(*shares.shape[:-1], ranks, experts // ranks).sum(axis=-1)
    else:
        first = -(-np.arange(ranks) * experts // ranks)
        load = np.add.reduceat(shares, first, axis=-1)
    result: Floats = load.max(axis=-1) / load.mean(axis=-1)
    return result


def arrange(
    shares: Floats, imbalance: Mapping[int, Floats], correlation: Floats, rng: np.random.Generator, swaps: int = SWAPS
) -> Floats:
    """[L, E] shares in any order -> the same shares rearranged within each layer.

    `imbalance` {ranks: [L]} are the targets for contiguous placement, `correlation` [L - 1] those for the log shares of
    neighbouring layers. Even and odd layers take turns, all layers of a turn at once; a swap stays if it is no worse.
    """
    targets = {ranks: np.log(np.asarray(goal)) for ranks, goal in imbalance.items() if ranks < shares.shape[1]}
    placed = np.take_along_axis(np.sort(shares, axis=1), _clustered_ranks(shares.shape, rng), axis=1)
    logs = _standard_logs(placed)
    halves = [_Half(first, targets, correlation, len(placed)) for first in (0, 1)]
    for turn in range(2 * swaps):
        halves[turn % 2].swap(placed, logs, rng)
    return placed


def _clustered_ranks(shape: tuple[int, ...], rng: np.random.Generator) -> Ints:
    """[L, E] ranks of a noise that blocks of 32, 16 and 8 neighbours share: a start from which few swaps are needed."""
    layers, experts = shape
    noise = rng.normal(size=shape)
    for block, weight in ((32, 0.5), (8, 0.4)):
        shared = rng.normal(size=(layers, -(-experts // block)))
        noise += weight * np.repeat(shared, block, axis=1)[:, :experts]
    return np.argsort(np.argsort(noise, axis=1), axis=1)


class _Half:
    """Every other layer, and what their swaps have to meet; the layers between stand still meanwhile."""

    def __init__(self, first: int, targets: Mapping[int, Floats], correlation: Floats, layers: int) -> None:
        self.rows = np.arange(first, layers, 2)
        self._targets = {ranks: goal[self.rows] for ranks, goal in targets.items()}
        padded = np.concatenate([[0.0], correlation, [0.0]])
        self._before = (np.maximum(self.rows - 1, 0), padded[self.rows], (self.rows > 0) * CORRELATION_WEIGHT)
        after = np.minimum(self.rows + 1, layers - 1)
        self._after = (after, padded[self.rows + 1], (self.rows < layers - 1) * CORRELATION_WEIGHT)

    def swap(self, placed: Floats, logs: Floats, rng: np.random.Generator) -> None:
        """Try one swap in each layer, in place; it stays if the layer's error does not grow."""
        if not len(self.rows):
            return
        mine, a, b = self.rows, *rng.integers(0, placed.shape[1], (2, len(self.rows)))
        before = self._error(placed, logs)
        _exchange((placed, logs), mine, a, b)
        worse = self._error(placed, logs) > before
        _exchange((placed, logs), mine[worse], a[worse], b[worse])

    def _error(self, placed: Floats, logs: Floats) -> Floats:
        mine, own = placed[self.rows], logs[self.rows]
        miss = np.zeros(len(mine))
        for ranks, goal in self._targets.items():
            miss += (np.log(contiguous_imbalance(mine, ranks)) - goal) ** 2
        for neighbour, goal, weight in (self._before, self._after):
            miss += weight * (np.einsum("le,le->l", own, logs[neighbour]) / own.shape[1] - goal) ** 2
        return miss


def _exchange(tables: tuple[Floats, ...], rows: Ints, a: Ints, b: Ints) -> None:
    for table in tables:
        table[rows, a], table[rows, b] = table[rows, b], table[rows, a]


def _standard_logs(shares: Floats) -> Floats:
    logs = np.log(shares)
    centred: Floats = logs - logs.mean(axis=1, keepdims=True)
    result: Floats = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-12)
    return result
