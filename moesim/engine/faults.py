"""Faults as rows: when, which link or rank, how much is left of it, until when, and what its traffic does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, unknown_name
from moesim.network.detours import Around
from moesim.units import to_ps

POLICIES = ("stall", "reroute", "abort")


@dataclass(frozen=True)
class Fault:
    """From `at` to `until` (seconds, None = for ever) a link has `factor` of its capacity, or a rank of its speed.

    What flows over a link of factor 0 do: "stall" (wait), "reroute" (take the links of `detour` instead of it, or the
    way that `around` knows, and stay there when it comes back; wait where there is none), "abort" (what is left of them
    is lost, the others of their coflow go on). `name` of the link, for messages. Raises BadInput.
    """

    at: float
    factor: float
    link: int | None = None
    rank: int | None = None
    until: float | None = None
    then: str = "stall"
    detour: tuple[int, ...] = ()
    around: Around | None = None
    name: str = ""

    def __post_init__(self) -> None:
        where = f"fault at {self.at} s"
        if (self.link is None) == (self.rank is None):
            raise BadInput("a fault strikes either a link or a rank", where=where)
        for name, value in (("at", self.at), ("factor", self.factor), ("until", self.until or 0.0)):
            if not math.isfinite(value) or value < 0:
                raise BadInput(f"{name} {value} must be finite and not negative", where=where)
        if self.until is not None and self.until <= self.at:
            raise BadInput(
                f"the repair at {self.until} s does not come after it", where=where, way_out="a later until, or none"
            )
        if self.then not in POLICIES:
            raise unknown_name("fault policy", self.then, POLICIES, where=where)
        if self.then != "stall" and (self.factor != 0 or self.link is None):
            raise BadInput(
                f"{self.then!r} is for a link of factor 0", where=where, way_out="factor: 0 of a link, or then: stall"
            )
        ways = bool(self.detour) + (self.around is not None)
        if ways != (self.then == "reroute") or self.link in self.detour:
            raise BadInput("'reroute', and only it, needs a detour of other links", where=where)

    @property
    def start(self) -> int:
        """Tick at which it strikes."""
        return int(to_ps(self.at))

    @property
    def end(self) -> int | None:
        """Tick of the repair; None for never."""
        return None if self.until is None else int(to_ps(self.until))

    def active(self, now: int) -> bool:
        """Whether it holds at a tick: from its start, up to but not at its end."""
        return self.start <= now and (self.end is None or now < self.end)

    def way(self, path: Sequence[int], link: int, dead: frozenset[int], ticket: int) -> list[int] | None:
        """See `Around`."""
        if self.around is not None:
            return self.around.around(path, link, dead, ticket)
        return [new for old in path for new in (self.detour if old == link else (old,))]

    def __str__(self) -> str:
        what = f"link {self.name or self.link}" if self.link is not None else f"rank {self.rank}"
        lasts = "for ever" if self.until is None else f"until {self.until:g} s"
        return f"{what} at {self.factor:g} of its speed from {self.at:g} s {lasts}"


class FaultTable:
    """All faults of a World. Where several hold, their factors multiply."""

    def __init__(self, faults: Iterable[Fault], num_links: int) -> None:
        self.rows = tuple(faults)
        for fault in self.rows:
            beyond = [link for link in (fault.link, *fault.detour) if link is not None and not 0 <= link < num_links]
            if beyond:
                raise BadInput(f"link {beyond[0]} does not exist, there are {num_links}", where=str(fault))
        self.links = Schedule((fault.link, fault) for fault in self.rows)
        self.ranks = Schedule((fault.rank, fault) for fault in self.rows)


class Schedule:
    """Faults of targets (links, or ranks; None: of no concern) in the order of their ticks, read once and forwards."""

    def __init__(self, rows: Iterable[tuple[int | None, Fault]]) -> None:
        self._events: list[tuple[int, int, int]] = []  # tick, target, row
        self._rows: list[Fault] = []
        self._holding: dict[int, dict[int, Fault]] = {}  # target -> rows that hold now, by number
        for target, fault in rows:
            if target is not None:
                ends = [fault.start] if fault.end is None else [fault.start, fault.end]
                self._events += [(tick, target, len(self._rows)) for tick in ends]
                self._rows.append(fault)
        self._events.sort()
        self._next = 0

    @property
    def next(self) -> int | None:
        """Tick of the next strike or repair."""
        return self._events[self._next][0] if self._next < len(self._events) else None

    def advance(self, now: int) -> dict[int, float]:
        """Targets at which something begins or ends by tick `now` -> what is left of each."""
        struck = set()
        while self._next < len(self._events) and self._events[self._next][0] <= now:
            tick, target, row = self._events[self._next]
            struck.add(target)
            self._next += 1
            holding, fault = self._holding.setdefault(target, {}), self._rows[row]
            if fault.active(tick):
                holding[row] = fault
            else:
                holding.pop(row, None)
        return {target: self.factor(target) for target in sorted(struck)}

    def factor(self, target: int) -> float:
        """What is left of it now."""
        return math.prod(fault.factor for fault in self._holding.get(target, {}).values())

    def killer(self, target: int) -> Fault | None:
        """The first row that takes all of it now, which decides what its flows do."""
        dead = [(row, fault) for row, fault in self._holding.get(target, {}).items() if fault.factor == 0]
        return min(dead, key=lambda one: one[0])[1] if dead else None


def mean_factors(faults: Iterable[Fault], num_links: int, until: int) -> npt.NDArray[np.float64]:
    """float64[L]: the share of its rate that each link had on the mean from tick 0 to `until`."""
    left = np.ones(num_links)
    by_link: dict[int, list[Fault]] = {}
    for fault in faults:
        if fault.link is not None and fault.start < until:
            by_link.setdefault(fault.link, []).append(fault)
    for link, rows in by_link.items():
        schedule, before, factor, total = Schedule((link, fault) for fault in rows), 0, 1.0, 0.0
        while (tick := schedule.next) is not None and tick < until:
            total += factor * (tick - before)
            factor, before = schedule.advance(tick)[link], tick
        left[link] = (total + factor * (until - before)) / until
    return left
