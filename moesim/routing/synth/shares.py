"""Expert shares, and where the hot experts sit: they cluster, which is what loads a rank of contiguous experts.

Independent draws give a contiguous imbalance at 32 ranks of 1.5 to 2.0 where DeepSeek-V3's files say 2.0 to 3.0. So
the shares of a layer are drawn first and then arranged, by swaps of two experts, until the imbalance at each number of
ranks and the correlation with the layer before are those asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SWAPS = 1000
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
    shares: Floats,
    imbalance: Mapping[int, Floats],
    correlation: Floats,
    mean_correlation: float,
    rng: np.random.Generator,
    swaps: int = SWAPS,
) -> Floats:
    """[L, E] shares in any order -> the same shares rearranged within each layer.

    `imbalance` {ranks: [L]} are the targets for contiguous placement, `correlation` [L - 1] those for the log shares of
    neighbouring layers and `mean_correlation` that of a layer with the others. Even and odd layers take turns, all
    layers of a turn at once; a swap stays if it is no worse.
    """
    targets = {ranks: np.log(np.asarray(goal)) for ranks, goal in imbalance.items() if ranks < shares.shape[1]}
    placed = _best_start(np.sort(shares, axis=1), targets, rng)
    logs = _standard_logs(placed)
    halves = [_Half(first, targets, correlation, mean_correlation, len(placed)) for first in (0, 1)]
    for turn in range(2 * swaps):
        halves[turn % 2].swap(placed, logs, rng)
    return placed


def moved(shares: Floats, variation: float, rng: np.random.Generator) -> Floats:
    """[L, E] shares (mean 1) -> those of a load that has moved: `variation` of it lies on other experts, mean over
    layers, by noise on the logarithm of each share. 0 moves nothing.
    """
    return _at(shares, variation, rng.normal(size=shares.shape), _shaken, 40)


def exchanged(shares: Floats, variation: float, rng: np.random.Generator) -> Floats:
    """[L, E] shares -> the same of each layer, some at other experts: as far from before as `moved`, and as skewed,
    however often it moves. Their order is that of shares with noise.
    """
    ordered = np.sort(shares, axis=1)

    def other(shares: Floats, noise: Floats, width: float) -> Floats:
        place = np.argsort(np.argsort(shares * np.exp(width * noise), axis=1), axis=1)
        found: Floats = np.take_along_axis(ordered, place, axis=1)
        return found

    return _at(shares, variation, rng.normal(size=shares.shape), other, 16)


def _at(
    shares: Floats, variation: float, noise: Floats, other: Callable[[Floats, Floats, float], Floats], halvings: int
) -> Floats:  # fmt: skip
    """other(shares, noise, width), of the width at which `variation` lies on other experts."""
    low, high = 0.0, 4.0
    for _ in range(halvings):
        middle = (low + high) / 2
        far = np.abs(other(shares, noise, middle) - shares).mean() / 2 > variation
        low, high = (low, middle) if far else (middle, high)
    return other(shares, noise, low)


def _shaken(shares: Floats, noise: Floats, width: float) -> Floats:
    other = shares * np.exp(width * noise)
    result: Floats = other / other.mean(axis=1, keepdims=True)
    return result


def _best_start(ordered: Floats, targets: Mapping[int, Floats], rng: np.random.Generator) -> Floats:
    """[L, E] ascending shares -> for each layer the most fitting of many placements, more and less clustered."""
    best, lowest = ordered.copy(), np.full(len(ordered), np.inf)
    for weight in np.tile(np.linspace(0.2, 1.6, 15), 8):
        tried = np.take_along_axis(ordered, _clustered_ranks(ordered.shape, float(weight), rng), axis=1)
        miss = _imbalance_error(tried, targets)
        better = miss < lowest
        best[better], lowest[better] = tried[better], miss[better]
    return best


def _clustered_ranks(shape: tuple[int, ...], weight: float, rng: np.random.Generator) -> Ints:
    """[L, E] ranks of a noise of which blocks of 32 and of 8 neighbours share parts of the given weight."""
    layers, experts = shape
    noise = rng.normal(size=shape)
    for block in (32, 8):
        shared = rng.normal(size=(layers, -(-experts // block)))
        noise += weight * np.repeat(shared, block, axis=1)[:, :experts]
    return np.argsort(np.argsort(noise, axis=1), axis=1)


def _imbalance_error(placed: Floats, targets: Mapping[int, Floats]) -> Floats:
    """[L, E] -> [L] squared misses of the logs of the imbalances."""
    miss = np.zeros(len(placed))
    for ranks, goal in targets.items():
        miss += (np.log(contiguous_imbalance(placed, ranks)) - goal) ** 2
    return miss


class _Half:
    """Every other layer, and what their swaps have to meet; the layers between stand still meanwhile."""

    def __init__(
        self, first: int, targets: Mapping[int, Floats], correlation: Floats, mean_correlation: float, layers: int
    ) -> None:
        self.rows, self._others = np.arange(first, layers, 2), np.arange(1 - first, layers, 2)
        self._mean_correlation = mean_correlation
        self._targets = {ranks: goal[self.rows] for ranks, goal in targets.items()}
        self._imbalance: Floats | None = None  # of the rows as they are; what is asked for most, and a turn changes one
        padded = np.concatenate([[0.0], correlation, [0.0]])
        self._before = (np.maximum(self.rows - 1, 0), padded[self.rows], (self.rows > 0) * CORRELATION_WEIGHT)
        after = np.minimum(self.rows + 1, layers - 1)
        self._after = (after, padded[self.rows + 1], (self.rows < layers - 1) * CORRELATION_WEIGHT)

    def swap(self, placed: Floats, logs: Floats, rng: np.random.Generator) -> None:
        """Try one swap in each layer, in place; it stays if the layer's error does not grow."""
        if not len(self.rows):
            return
        mine, a, b = self.rows, *rng.integers(0, placed.shape[1], (2, len(self.rows)))
        common = logs[self._others].mean(axis=0) if len(self._others) else None
        if self._imbalance is None:
            self._imbalance = _imbalance_error(placed[mine], self._targets)
        before = self._error(self._imbalance, logs, common)
        _exchange((placed, logs), mine, a, b)
        imbalance = _imbalance_error(placed[mine], self._targets)
        worse = self._error(imbalance, logs, common) > before
        _exchange((placed, logs), mine[worse], a[worse], b[worse])
        self._imbalance = np.where(worse, self._imbalance, imbalance)

    def _error(self, imbalance: Floats, logs: Floats, common: Floats | None) -> Floats:
        own, miss = logs[self.rows], imbalance.copy()
        for neighbour, goal, weight in (self._before, self._after):
            miss += weight * (np.einsum("le,le->l", own, logs[neighbour]) / own.shape[1] - goal) ** 2
        if common is not None:
            miss += CORRELATION_WEIGHT * (own @ common / own.shape[1] - self._mean_correlation) ** 2
        return miss


def _exchange(tables: tuple[Floats, ...], rows: Ints, a: Ints, b: Ints) -> None:
    for table in tables:
        table[rows, a], table[rows, b] = table[rows, b], table[rows, a]


def _standard_logs(shares: Floats) -> Floats:
    logs = np.log(shares)
    centred: Floats = logs - logs.mean(axis=1, keepdims=True)
    result: Floats = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-12)
    return result
