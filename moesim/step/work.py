"""Work: the seconds of one task on each rank, kept apart by error family so that an error can be drawn per family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.costs import Estimate

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Demand:
    """What a family's share of a task has to do on each rank: flops, bytes float64[ranks]; dtypes of its arithmetic,
    kernels: the measured ones that do it.
    """

    flops: Floats
    bytes: Floats
    dtypes: frozenset[str]
    kernels: frozenset[str]

    def __add__(self, other: Demand) -> Demand:
        names = (self.dtypes | other.dtypes, self.kernels | other.kernels)
        return Demand(self.flops + other.flops, self.bytes + other.bytes, *names)

    def times(self, factor: float) -> Demand:
        """So many times as much."""
        return replace(self, flops=self.flops * factor, bytes=self.bytes * factor)

    def summed(self) -> Demand:
        """[ranks, slots] -> [ranks]."""
        return replace(self, flops=self.flops.sum(axis=1), bytes=self.bytes.sum(axis=1))

    def shared_out(self, group: Groups, share: Floats, groups: int) -> Demand:
        """See Work.shared_out."""
        flops, moved = (_by_group(value * share, group, groups) for value in (self.flops, self.bytes))
        return replace(self, flops=flops, bytes=moved)

    @classmethod
    def of(cls, estimate: Estimate) -> Demand:
        """Of one answer of a CostModel."""
        flops, moved = (
            np.broadcast_to(np.asarray(value, dtype=np.float64), np.shape(estimate.seconds))
            for value in (estimate.flops, estimate.bytes)
        )
        kernels = frozenset([estimate.kernel] if estimate.kernel else [])
        return cls(flops, moved, frozenset([estimate.dtype]), kernels)


@dataclass(frozen=True)
class Work:
    """family -> seconds float64[ranks], and what is done in them. Work adds up; a factor scales all of it."""

    seconds: Mapping[str, Floats] = field(default_factory=dict)
    demand: Mapping[str, Demand] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        return Work(_merged(self.seconds, other.seconds), _merged(self.demand, other.demand))

    def times(self, factor: float) -> Work:
        """`factor` times as much of the same work."""
        return Work(self.stretched(factor).seconds, {name: one.times(factor) for name, one in self.demand.items()})

    def stretched(self, factor: float) -> Work:
        """The same work, `factor` times as long."""
        return Work({family: seconds * factor for family, seconds in self.seconds.items()}, self.demand)

    def shared_out(self, group: Groups, share: Floats, groups: int) -> Work:
        """Work of [rows] -> of [groups]: of each row its share float64[rows], added up by group int64[rows]."""
        demand = {name: one.shared_out(group, share, groups) for name, one in self.demand.items()}
        seconds = {family: _by_group(found * share, group, groups) for family, found in self.seconds.items()}
        return Work(seconds, demand)

    def repeated(self, ways: int) -> Work:
        """Work of [groups] -> of [groups x ways]: all ranks of a group do the same."""
        demand = {
            name: replace(one, flops=np.repeat(one.flops, ways), bytes=np.repeat(one.bytes, ways))
            for name, one in self.demand.items()
        }
        return Work({family: np.repeat(seconds, ways) for family, seconds in self.seconds.items()}, demand)

    def summed(self) -> Work:
        """Work of [ranks, slots] -> of [ranks]: all slots, one after the other."""
        demand = {name: one.summed() for name, one in self.demand.items()}
        return Work({family: seconds.sum(axis=1) for family, seconds in self.seconds.items()}, demand)

    def only(self, family: str) -> Work:
        """What is of that family."""
        return self._of({family} & self.seconds.keys())

    def without(self, family: str) -> Work:
        """What is of all others."""
        return self._of(self.seconds.keys() - {family})

    def _of(self, families: Set[str]) -> Work:
        kept = [name for name in self.seconds if name in families]
        return Work(
            {name: self.seconds[name] for name in kept},
            {name: self.demand[name] for name in kept if name in self.demand},
        )

    @property
    def total(self) -> Floats | float:
        """float64[ranks]: all families together."""
        return sum(self.seconds.values(), start=0.0)


def _by_group(values: Floats, group: Groups, groups: int) -> Floats:
    return np.bincount(group, values, groups).astype(np.float64)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for family, value in other.items():
        merged[family] = merged[family] + value if family in merged else value
    return merged


@dataclass
class CostLog:
    """What the answers of a CostModel rested on: how many were asked, and how many lay outside what was measured;
    kernels: role -> the measured kernel that played it.
    """

    basis: dict[str, str] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)

    def work(self, estimates: Iterable[Estimate]) -> Work:
        """Estimates of float64[ranks] -> their Work; what they rest on is noted."""
        total = Work()
        for estimate in estimates:
            self.note(estimate)
            seconds = np.asarray(estimate.seconds, dtype=np.float64)
            total = total + Work({estimate.family: seconds}, {estimate.family: Demand.of(estimate)})
        return total

    def seconds(self, estimates: Iterable[Estimate]) -> Work:
        """The same without what they demand."""
        total = Work()
        for estimate in estimates:
            self.note(estimate)
            total = total + Work({estimate.family: np.asarray(estimate.seconds, dtype=np.float64)})
        return total

    def note(self, estimate: Estimate) -> None:
        """Count one answer."""
        self.learn(estimate)
        self.count(estimate.family, int(np.size(estimate.seconds)), int(np.count_nonzero(estimate.outside)))

    def learn(self, estimate: Estimate) -> None:
        """What answers of its family rest on."""
        if self.basis.get(estimate.family) != "assumed":  # one assumed kernel among a family's is enough to say so
            self.basis[estimate.family] = estimate.basis
        if estimate.role:
            self.kernels[estimate.role] = estimate.kernel

    def count(self, family: str, asked: int, outside: int) -> None:
        """So many shapes were asked for, so many of them outside of what was measured."""
        self.asked[family] = self.asked.get(family, 0) + asked
        self.outside[family] = self.outside.get(family, 0) + outside
