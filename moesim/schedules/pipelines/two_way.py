"""What DualPipe and DualPipeV share: every rank has a near and a far end of the way of micro-batches.

Numbers of each rank's eight stretches: DeepSeek-V3 report (2024), figure 5, counted there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from moesim.schedules.pipelines.act import Act, Pass, Slot

Place = Callable[[int, int], tuple[int, int]]


class TwoWay:
    """depth: ranks from an end of the way to its middle; near: this rank's distance from the end; count: micro-batches
    of each side; place(side, number) -> (micro-batch, stage).
    """

    def __init__(self, depth: int, near: int, count: int, place: Place) -> None:
        self.depth, self.near, self.count, self.place = depth, near, count, place
        self.at: dict[tuple[Pass, int], int] = {}
        self.owed: list[Act] = []

    def slots(self) -> Iterator[Slot]:
        """Fill, alternate, overlap, drain."""
        inner, outer = self.depth - self.near - 1, self.near + 1
        for _ in range(2 * inner):
            yield self._one(Pass.F, 0)
        for _ in range(outer):
            yield self._one(Pass.F, 0)
            yield self._one(Pass.F, 1)
        for _ in range(inner):
            yield self._one(Pass.D, 1)
            yield self._weights()
            yield self._one(Pass.F, 1)
        yield from self._steady(self.count - 2 * self.depth + outer, inner)
        yield from self._drain(inner, outer)

    def _steady(self, pairs: int, inner: int) -> Iterator[Slot]:
        """Forward of one side beside backward of the other; a rank in the middle has to begin one by one."""
        for number in range(pairs):
            if number == 0 and inner == 0:
                yield self._one(Pass.F, 0)
                yield self._one(Pass.B, 1)
            else:
                yield self._both(0, 1)
            yield self._both(1, 0)
        for _ in range(inner):
            yield self._one(Pass.B, 1)
            yield self._both(1, 0)

    def _drain(self, inner: int, outer: int) -> Iterator[Slot]:
        """Backwards alone: the later half of them put their weights off to the end."""
        for number in range(2 * outer):
            later = number >= outer  # half of the backwards of both sides
            yield self._one(Pass.D if later else Pass.B, 1 - number % 2)
        for _ in range(inner):
            yield self._weights()
            yield self._one(Pass.D, 0)
        while self.owed:
            yield self._weights()

    def _next(self, what: Pass, side: int) -> Act:
        counted = Pass.F if what == Pass.F else Pass.B
        number = self.at.get((counted, side), 0)
        self.at[counted, side] = number + 1
        act = Act(what, *self.place(side, number))
        if what == Pass.D:
            self.owed.append(Act(Pass.W, act.micro_batch, act.stage))
        return act

    def _one(self, what: Pass, side: int) -> Slot:
        return (self._next(what, side),)

    def _both(self, forward: int, backward: int) -> Slot:
        return self._next(Pass.F, forward), self._next(Pass.B, backward)

    def _weights(self) -> Slot:
        return (self.owed.pop(0),)
