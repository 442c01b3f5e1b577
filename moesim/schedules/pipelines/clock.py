"""Seconds of slots -> when each is done, or the cycle that keeps an order from ever ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from moesim.errors import Deadlock
from moesim.schedules.pipelines.act import Act, Orders, Pass, Slot

Price = Callable[[int, Slot], int]


class Played(NamedTuple):
    """start and end of each slot of each rank, in the unit of the prices."""

    orders: Orders
    start: tuple[tuple[int, ...], ...]
    end: tuple[tuple[int, ...], ...]

    @property
    def makespan(self) -> int:
        """From zero until all is done."""
        return max((ends[-1] for ends in self.end if ends), default=0)

    @property
    def busy(self) -> tuple[int, ...]:
        """Of each rank: what its slots take."""
        return tuple(sum(ends) - sum(starts) for starts, ends in zip(self.start, self.end, strict=True))

    @property
    def bubble(self) -> float:
        """Share of the ranks' time in which they wait."""
        return 1.0 - sum(self.busy) / (len(self.busy) * self.makespan)


def play(orders: Orders, price: Price, transfer: Callable[[int, int], int] = lambda source, target: 0) -> Played:
    """A rank does its slots one after the other, each once what it needs is there. price(rank, slot): how long it
    takes; transfer(rank, rank): how long what a stage hands on is under way; one's own is there at once.

    Raises Deadlock with the cycle.
    """
    done: dict[Act, tuple[int, int]] = {}
    last = max((act.stage for rank in orders for slot in rank for act in slot), default=0)
    start: list[list[int]] = [[] for _ in orders]
    end: list[list[int]] = [[] for _ in orders]
    moved = True
    while moved:
        moved = False
        for rank, slots in enumerate(orders):
            while len(end[rank]) < len(slots):
                slot = slots[len(end[rank])]
                needed = [one for act in slot for one in needs(act, last) if one not in slot]
                if any(not _ended(one, done) for one in needed):
                    break
                came = [_arrives(one, done, rank, transfer) for one in needed]
                begin = max([end[rank][-1] if end[rank] else 0, *came])
                start[rank].append(begin)
                end[rank].append(begin + price(rank, slot))
                done.update(dict.fromkeys(slot, (end[rank][-1], rank)))
                moved = True
    at = [len(ends) for ends in end]
    if any(here < len(slots) for here, slots in zip(at, orders, strict=True)):
        raise Deadlock(_cycle(orders, at, done, last), way_out="each pass comes after those that it needs")
    return Played(orders, tuple(map(tuple, start)), tuple(map(tuple, end)))


def needs(act: Act, last: int) -> Iterator[Act]:
    """The acts whose results an act takes; an input gradient stands for the whole backward where that is split."""
    what, number, stage = act
    if what == Pass.F and stage:
        yield Act(Pass.F, number, stage - 1)
    elif what in (Pass.B, Pass.D):
        yield Act(Pass.F, number, stage)
        if stage < last:
            yield Act(Pass.B, number, stage + 1)
    elif what == Pass.W:
        yield Act(Pass.D, number, stage)


def _either(act: Act) -> tuple[Act, ...]:
    return (act, Act(Pass.D, act.micro_batch, act.stage)) if act.what == Pass.B else (act,)


def _ended(act: Act, done: dict[Act, tuple[int, int]]) -> bool:
    return any(one in done for one in _either(act))


def _arrives(
    act: Act, done: dict[Act, tuple[int, int]], rank: int, transfer: Callable[[int, int], int]
) -> int:  # fmt: skip
    ended, source = next(done[one] for one in _either(act) if one in done)
    return ended if source == rank else ended + transfer(source, rank)


def _cycle(orders: Orders, at: Sequence[int], done: dict[Act, tuple[int, int]], last: int) -> str:
    """Who waits for whom, from the first stuck rank on until one comes again."""
    place = {act: rank for rank, slots in enumerate(orders) for slot in slots for act in slot}
    rank = next(rank for rank, slots in enumerate(orders) if at[rank] < len(slots))
    steps: list[tuple[int, str]] = []
    while all(rank != before for before, _ in steps):
        slot = orders[rank][at[rank]]
        act, missing = next(
            (act, one) for act in slot for one in needs(act, last) if one not in slot and not _ended(one, done)
        )
        owner = next((place[one] for one in _either(missing) if one in place), None)
        steps.append((rank, f"rank {rank} at {act} waits for {missing}"))
        if owner is None:
            return f"{steps[-1][1]}, which no rank does"
        rank = owner
    first = next(number for number, (before, _) in enumerate(steps) if before == rank)
    return "; ".join([*(words for _, words in steps[first:]), f"back at rank {rank}"])
