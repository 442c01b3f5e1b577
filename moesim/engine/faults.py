"""Faults as rows: when, which link or rank, how much is left of it, until when, and what its traffic does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from moesim.errors import BadInput, unknown_name
from moesim.units import to_ps

POLICIES = ("stall", "reroute", "abort")


@dataclass(frozen=True)
class Fault:
    """From `at` to `until` (seconds, None = for ever) a link has `factor` of its capacity, or a rank of its speed.

    What flows over a link of factor 0 do: "stall" (wait), "reroute" (take the links of `detour` instead of it, and stay
    there when it comes back), "abort" (their whole coflow ends at once, undelivered). `name` of the link, for messages.
    Raises BadInput.
    """

    at: float
    factor: float
    link: int | None = None
    rank: int | None = None
    until: float | None = None
    then: str = "stall"
    detour: tuple[int, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        where = f"fault at {self.at} s"
        if (self.link is None) == (self.rank is None):
            raise BadInput("a fault strikes either a link or a rank", where=where)
        for name, value in (("at", self.at), ("factor", self.factor), ("until", self.until or 0.0)):
            if not math.isfinite(value) or value < 0:
                raise BadInput(f"{name} {value} must be finite and not negative", where=where)
        if self.until is not None and self.until <= self.at:
            raise BadInput(f"the repair at {self.until} s does not come after it", where=where)
        if self.then not in POLICIES:
            raise unknown_name("fault policy", self.then, POLICIES, where=where)
        if self.then != "stall" and (self.factor != 0 or self.link is None):
            raise BadInput(f"{self.then!r} is for a link of factor 0", where=where)
        if bool(self.detour) != (self.then == "reroute") or self.link in self.detour:
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

    def changes(self) -> list[int]:
        """Ticks at which something strikes or is repaired, in order."""
        ends = {fault.end for fault in self.rows if fault.end is not None}
        return sorted({fault.start for fault in self.rows} | ends)

    def link_factors(self, now: int) -> dict[int, float]:
        """Factor of every link that any fault names."""
        return self._factors([(fault.link, fault) for fault in self.rows], now)

    def rank_factors(self, now: int) -> dict[int, float]:
        """Factor of every rank that any fault names."""
        return self._factors([(fault.rank, fault) for fault in self.rows], now)

    def _factors(self, named: list[tuple[int | None, Fault]], now: int) -> dict[int, float]:
        factors: dict[int, float] = {}
        for target, fault in named:
            if target is not None:
                factors[target] = factors.get(target, 1.0) * (fault.factor if fault.active(now) else 1.0)
        return factors

    def dead_links(self, now: int) -> dict[int, Fault]:
        """Links of factor 0 -> the fault that decides what their flows do (the first row that killed them).

        Where detours over dead links lead back to the link itself there is no way round: its flows wait.
        """
        dead: dict[int, Fault] = {}
        for fault in self.rows:
            if fault.link is not None and fault.factor == 0 and fault.active(now):
                dead.setdefault(fault.link, fault)
        stuck = {link for link in dead if link in _reached(link, dead)}
        return {
            link: replace(fault, then="stall", detour=()) if link in stuck else fault for link, fault in dead.items()
        }


def _reached(link: int, dead: Mapping[int, Fault]) -> set[int]:
    """Links that flows of a dead link come to on detours, and on detours of dead links on these."""
    reached: set[int] = set()
    ahead = [link]
    while ahead:
        fault = dead.get(ahead.pop())
        fresh = set(fault.detour) - reached if fault else set()
        reached |= fresh
        ahead += fresh
    return reached
