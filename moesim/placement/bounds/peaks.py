"""How many replicas each expert needs for the peaks of all windows at once: a bound that one window cannot see.

Replicas are the same in every window, so an expert that is hot in one window takes slots that another needs in the
next. Let T_w be the slowest rank in window w. The k replicas of an expert with load x stand on d <= k ranks, whose n d
slots hold n d - k others. c of these may be parts of experts that have replicas themselves; the rest is no less than
the lightest experts: one of the d ranks takes level(k, c) = (x + lightest[n d - k - c]) / d or more. So whoever wants a
lower T_w pays for replicas, a slot each, or for parts, half a slot each: an expert cut s times has 1 + s <= 2 s parts.

Of an expert that may need U slots beyond its first itself, a part counts as a whole companion down to x / (2 U + 2):
smaller ones have k >= 2 U + 2, and k parts are paid by the k - 1 - U >= k / 2 slots that it does not need. Lightest
loads above that are cut down to it.

The least mean T_w for which the slots suffice is a program with constraints "this step of T_w needs that half slot"
(a closure) and one sum; so its linear relaxation lies at most about a slot's worth below the best of whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SAFE = 1e-7  # relative: what a solver's tolerance may have added to a value


@dataclass(frozen=True)
class Layer:
    """x float64[W, experts] load over the fair share of a rank; floor float64[W] no less than 1: what T_w cannot be
    below anyway; spare slots beyond one an expert; room slots of a rank at least; most ranks
    that an expert can stand on."""

    x: Floats
    floor: Floats
    spare: int
    room: int
    most: int

    def levels(self) -> Floats:
        """float64[W, experts, U]: what T_w cannot be below for u = 0 .. U - 1 units of a slot beyond the first."""
        most = self.replicas
        count = self.units * (most - 1) + 1
        result, light = np.full((*self.x.shape, count), np.inf), self.lightest(most)
        for k in range(1, most + 1):
            for parts in range(count - self.units * (k - 1)):
                ranks = np.arange(1, min(k, self.most) + 1)
                beside = np.maximum(self.room * ranks - k - parts, 0)
                filled = np.minimum(beside, self.x.shape[1] - 1)  # others that are whole; more can only be parts
                level = (self.x[:, :, None] + light[:, None, filled]) / ranks
                at = self.units * (k - 1) + parts
                result[..., at] = np.minimum(result[..., at], level.min(axis=2))
        lowest: Floats = np.minimum.accumulate(result, axis=2)
        return lowest

    @property
    def replicas(self) -> int:
        """Of an expert that are looked at one by one; who pays for more is let down to the floor at once."""
        return min(int(np.ceil((self.x / self.floor[:, None]).max())) + 1, self.spare + 1)

    @property
    def units(self) -> int:
        """Units of a slot that are paid for: halves where a replica has companions."""
        return 2 if self.room > 1 else 1

    def lightest(self, most: int) -> Floats:
        """float64[W, experts + 1]: load of the 0, 1, 2 ... lightest experts, none above what a part counts for."""
        heavy = (self.x * self.room > self.floor[:, None]).any(axis=0)  # with companions no heavier than itself
        wanted = np.minimum(np.ceil((self.x * self.room / self.floor[:, None]).max(axis=0)), min(most, self.spare))
        part = np.where(heavy, self.x / (2 * wanted + 2), np.inf).min(axis=1, keepdims=True)
        order = np.minimum(np.sort(self.x, axis=1), part)
        return np.concatenate([np.zeros((len(self.x), 1)), np.cumsum(order, axis=1)], axis=1)


@dataclass(frozen=True)
class Found:
    """value: least mean T_w; replicas float64[experts] beyond the first, as the relaxation has them."""

    value: float
    replicas: Floats


def of(problem: PlacementProblem, x: Floats, floor: Floats) -> Layer:
    """x float64[W, experts] over the fair share of the fastest rank, floor float64[W]. Replicas that do not share
    evenly leave companions of any load: then a rank counts as if it had one slot."""
    owned = problem.slots_of_rank[problem.slots_of_rank > 0]
    room = int(owned.min()) if problem.dispatch.name == "even" else 1
    return Layer(x, floor, problem.slots - problem.experts, room, len(owned))


def least_peak(layer: Layer) -> Found:
    """The bound on mean T_w, and the replicas that reach it, in parts. Variables are one a unit of a slot of an expert,
    and one a step of T_w down to the next level, which needs the unit of that level and the step before."""
    levels = layer.levels()
    windows, experts, count = levels.shape
    floor = layer.floor
    if layer.replicas > layer.spare:  # all slots beyond one an expert: nobody has more
        floor = np.maximum(floor, levels[..., -1].max(axis=1))
    flat = levels.reshape(windows, -1)
    items = np.flatnonzero((flat > floor[:, None]).any(axis=0))
    started, steps = _steps(flat[:, items], floor)
    replicas = np.zeros(experts)
    if not len(steps.gain):
        return Found(float(floor.mean()), replicas)
    answer = _solved(steps, len(items), layer.spare * layer.units)
    np.add.at(replicas, items // count, answer.x[: len(items)] / layer.units)
    value = (started.sum() + answer.fun) / windows
    return Found(max(float(value) * (1 - SAFE), float(floor.mean())), replicas)


@dataclass(frozen=True)
class _Steps:
    """gain float64[n] by which T_w falls; item int64[n] replica that it needs; first bool[n] of its window."""

    gain: Floats
    item: Ints
    first: npt.NDArray[np.bool_]


def _steps(levels: Floats, floor: Floats) -> tuple[Floats, _Steps]:
    """levels float64[W, items] -> float64[W] where T_w starts, and its steps down to the floor."""
    gains, items, firsts, started = [], [], [], floor.copy()
    for window, row in enumerate(levels):
        order = np.argsort(-row, kind="stable")
        order = order[row[order] > floor[window]]
        down = np.concatenate([row[order], floor[window : window + 1]])
        started[window] = down[0]
        gains.append(down[:-1] - down[1:])
        items.append(order)
        firsts.append(np.arange(len(order)) == 0)
    return started, _Steps(np.concatenate(gains), np.concatenate(items), np.concatenate(firsts))


def _solved(steps: _Steps, items: int, spare: int) -> Any:
    """The relaxation: steps and replicas between 0 and 1."""
    count = len(steps.gain)
    step, later = items + np.arange(count), np.flatnonzero(~steps.first)
    row = np.arange(count)
    rows = np.concatenate([row, row, count + np.arange(len(later)), count + np.arange(len(later))])
    columns = np.concatenate([step, steps.item, step[later], step[later] - 1])
    values = np.concatenate([np.ones(count), -np.ones(count), np.ones(len(later)), -np.ones(len(later))])
    last = count + len(later)
    rows, columns = np.append(rows, np.full(items, last)), np.append(columns, np.arange(items))
    values, upper = np.append(values, np.ones(items)), np.append(np.zeros(last), float(spare))
    matrix: Any = scipy.sparse.coo_array((values, (rows, columns)), shape=(last + 1, items + count)).tocsr()
    cost = np.concatenate([np.zeros(items), -steps.gain])
    return scipy.optimize.linprog(cost, matrix, upper, bounds=(0, 1), method="highs-ds")


def whole(layer: Layer, found: Found) -> Ints:
    """int64[experts] replicas: parts rounded, then single slots change hands while the mean over windows of the hottest
    replica falls; slots that no peak needs go where a replica is hottest on average."""
    extra = np.floor(found.replicas + 1e-6)
    replicas = 1 + extra.astype(np.int64)
    for expert in np.argsort(extra - found.replicas, kind="stable")[: max(layer.spare - int(extra.sum()), 0)]:
        replicas[expert] += found.replicas[expert] > extra[expert]
    replicas = np.minimum(replicas, layer.most)
    mean = layer.x.mean(axis=0)
    for _ in range(layer.spare + len(mean) - int(replicas.sum())):
        replicas[np.where(replicas < layer.most, mean / replicas, -1.0).argmax()] += 1
    while (better := _handed_over(layer, replicas)) is not None:
        replicas = better
    return replicas


def _handed_over(layer: Layer, replicas: Ints) -> Ints | None:
    """One slot from an expert that has several to one that is hottest in some window, if that is better at all."""
    part = layer.x / replicas
    givers, takers = np.flatnonzero(replicas > 1), np.unique(part.argmax(axis=1))
    takers = takers[replicas[takers] < layer.most]
    pairs = np.array([(giver, taker) for giver in givers for taker in takers if giver != taker]).reshape(-1, 2)
    if not len(pairs):
        return None
    value = np.empty(len(pairs))
    for number, (giver, taker) in enumerate(pairs):
        tried = replicas.copy()
        tried[giver], tried[taker] = tried[giver] - 1, tried[taker] + 1
        value[number] = np.maximum((layer.x / tried).max(axis=1), layer.floor * 0.5).mean()
    best = int(value.argmin())
    if value[best] >= np.maximum(part.max(axis=1), layer.floor * 0.5).mean() - 1e-9:
        return None
    result = replicas.copy()
    result[pairs[best]] += (-1, 1)
    return result
