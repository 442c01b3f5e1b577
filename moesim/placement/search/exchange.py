"""Exchange: items of one layer settle on ranks for a given cost each, two ranks at a time, within slots and load caps.

Cost per item and rank with the number of items of each rank given is an assignment; load caps make it NP-hard. Two
ranks that split their items anew are a knapsack with a fixed number of items: a price on load, found by bisection,
picks the cheapest items for the first rank, and swaps use up what slack is left. All layers of a batch and all disjoint
pairs of ranks are split together; a round-robin tournament visits every pair.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
STEPS, SWAPS, TINY = 14, 3, 1e-6


def settle(cost: npt.NDArray[np.floating], load: Floats, rank: Ints, cap: Floats, room: Ints) -> None:
    """cost float[B, S, ranks], load float64[B, S], rank int64[B, S], cap float64[B, ranks], room int64[ranks].

    `rank` changes in place: no pair of ranks ends costlier, or further above its caps, than it was.
    """
    for matches in tournament(len(room)):
        for pairs in _alike(matches, room):
            _split(cost, load, rank, cap, room, pairs)


def tournament(ranks: int) -> list[list[tuple[int, int]]]:
    """Rounds of disjoint pairs in which everyone meets everyone once (circle method)."""
    ring, rounds = list(range(ranks + ranks % 2)), []
    for _ in range(len(ring) - 1):
        pairs = [(ring[n], ring[-1 - n]) for n in range(len(ring) // 2)]
        rounds.append([(a, b) for a, b in pairs if max(a, b) < ranks])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def _alike(matches: list[tuple[int, int]], room: Ints) -> list[Ints]:
    """Pairs with the same slots together, so that their items fill one array; pairs without a slot are left out."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for a, b in matches:
        groups[int(room[a]), int(room[b])].append((a, b))
    return [np.array(pairs).T for (first, second), pairs in groups.items() if first and second]


class _Pairs(NamedTuple):
    """Items of pairs (a, b): extra [B, K, m] cost of standing on a, load [B, K, m]; low, high [B, K] load of a."""

    extra: Floats
    load: Floats
    low: Floats
    high: Floats
    first: int  # items of a

    def cost(self, on_a: Bools) -> Floats:
        total: Floats = (on_a * self.extra).sum(axis=2)
        return total

    def excess(self, on_a: Bools) -> Floats:
        held = (on_a * self.load).sum(axis=2)
        over: Floats = np.maximum(np.maximum(held - self.high, self.low - held), 0.0)
        return over

    def cheapest(self, price: Floats) -> Bools:
        """bool[B, K, m]: the `first` items that cost a least when load costs `price` [B, K]."""
        key = self.extra + price[..., None] * self.load
        picked = np.argpartition(key, self.first - 1, axis=2)[..., : self.first]
        on_a = np.zeros(key.shape, dtype=bool)
        np.put_along_axis(on_a, picked, True, axis=2)
        return on_a


def _split(
    cost: npt.NDArray[np.floating], load: Floats, rank: Ints, cap: Floats, room: Ints, pairs: Ints
) -> None:  # fmt: skip
    a, b = pairs
    side = np.full(len(room), -1)
    side[a] = side[b] = np.arange(len(a))
    order = np.argsort(side[rank], axis=1, kind="stable")
    each = int(room[a[0]] + room[b[0]])
    item = order[:, len(load[0]) - each * len(a) :].reshape(len(load), len(a), each)
    batch = np.arange(len(load))[:, None, None]
    extra = cost[batch, item, a[:, None]].astype(np.float64) - cost[batch, item, b[:, None]]
    held = load[batch, item]
    work = _Pairs(extra, held, held.sum(axis=2) - cap[:, b], cap[:, a], int(room[a[0]]))
    on_a = _swapped(work, _priced(work, rank[batch, item] == a[:, None]))
    rank[batch, item] = np.where(on_a, a[:, None], b[:, None])


def _priced(work: _Pairs, now: Bools) -> Bools:
    """The best of the present split and those at prices between none and so much that load alone decides."""
    best, value, excess = now, work.cost(now), work.excess(now)
    free = work.cheapest(np.zeros(value.shape))
    held = (free * work.load).sum(axis=2)
    sign = np.where(held > work.high, 1.0, np.where(held < work.low, -1.0, 0.0))
    best, value, excess = _better(work, free, best, value, excess)
    spread = np.abs(work.load - work.load.mean(axis=2, keepdims=True)).max(axis=2)
    low, high = np.zeros(value.shape), 100 * np.abs(work.extra).max(axis=2) / np.maximum(spread, 1e-9)
    for _ in range(STEPS if sign.any() else 0):
        price = (low + high) / 2
        tried = work.cheapest(sign * price)
        best, value, excess = _better(work, tried, best, value, excess)
        held = (tried * work.load).sum(axis=2)
        beyond = np.where(sign > 0, held > work.high, held < work.low)
        low, high = np.where(beyond, price, low), np.where(beyond, high, price)
    return best


def _better(
    work: _Pairs, tried: Bools, best: Bools, value: Floats, excess: Floats
) -> tuple[Bools, Floats, Floats]:  # fmt: skip
    """Less above the caps, or as little and cheaper."""
    cost, over = work.cost(tried), work.excess(tried)
    take = (over < excess) | ((over <= excess) & (cost < value - TINY))
    return np.where(take[..., None], tried, best), np.where(take, cost, value), np.where(take, over, excess)


def _swapped(work: _Pairs, on_a: Bools) -> Bools:
    """A few best swaps of one item each way that the caps allow."""
    order = np.argsort(~on_a, axis=2, kind="stable")  # those of a first
    extra, load = np.take_along_axis(work.extra, order, axis=2), np.take_along_axis(work.load, order, axis=2)
    n, held = work.first, (on_a * work.load).sum(axis=2)
    for _ in range(SWAPS):
        gain = extra[..., :n, None] - extra[..., None, n:]  # item i leaves a, item j comes
        after = held[..., None, None] - load[..., :n, None] + load[..., None, n:]
        gain[(after > work.high[..., None, None]) | (after < work.low[..., None, None])] = -np.inf
        flat = gain.reshape(*held.shape, -1)
        which = flat.argmax(axis=2)
        batch, pair = np.nonzero(np.take_along_axis(flat, which[..., None], axis=2)[..., 0] > TINY)
        if not len(batch):
            break
        leaves, comes = np.divmod(which[batch, pair], gain.shape[3])
        for table in (order, extra, load):
            one, other = (batch, pair, leaves), (batch, pair, n + comes)
            table[one], table[other] = table[other], table[one].copy()
        held = load[..., :n].sum(axis=2)
    result = np.zeros(on_a.shape, dtype=bool)
    np.put_along_axis(result, order[..., :n], True, axis=2)
    return result
