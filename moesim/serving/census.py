"""Census: what the schedulers of a replica have, in columns: of many, few change in a step, and only they are asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving.requests import Ints
from moesim.serving.scheduler import Scheduler

RUNNING, WAITING, LANDED, EXPECTED, USED = range(5)


class Census:
    """int64[5, schedulers]: requests that run, wait, have landed, and whose KV is on the way; KV blocks in use."""

    def __init__(self, schedulers: Sequence[Scheduler]) -> None:
        self._schedulers = tuple(schedulers)
        self._columns = np.zeros((USED + 1, len(self._schedulers)), dtype=np.int64)
        self._changed = set(range(len(self._schedulers)))

    def change(self, number: int) -> None:
        """Something happens to a scheduler."""
        self._changed.add(number)

    def of(self, column: int) -> Ints:
        """One column, as the schedulers are now."""
        for number in self._changed:
            self._columns[:, number] = _counted(self._schedulers[number])
        self._changed.clear()
        found: Ints = self._columns[column]
        return found

    @property
    def loads(self) -> Ints:
        """int64[schedulers]: requests that have come and are not answered."""
        return self.of(RUNNING) + self.of(WAITING) + self.of(LANDED)


def _counted(one: Scheduler) -> tuple[int, int, int, int, int]:
    queue, blocks = one.queue, one.blocks
    running = len(queue.started) + len(queue.decoding)
    waiting = len(one.inbox) + len(queue.waiting) + len(queue.swapped)
    return running, waiting, len(one.landed), one.expected, blocks.total - blocks.free
