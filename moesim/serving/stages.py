"""Stages: work that a request goes through beside the model, an encoder, a retriever or a model that routes.

A stage with devices of its own is a queue in front of the replicas: who comes first is served first, one request at a
time on each device, for as long as the stage says. A stage on the replicas' GPUs is part of their steps, and they wait
for it: for each prompt that begins in a step, or for the tokens of every step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moesim.serving.book import Book
from moesim.serving.cadence import NEVER
from moesim.serving.clock import Clock, Grows, stepped
from moesim.serving.requests import Ints
from moesim.step import Batch, Phase
from moesim.units import LAST_TICK, beyond_clock


@dataclass(frozen=True)
class Stage:
    """ps(tokens): of a request whose prompt has so many; per_token: of so many tokens of a step, on the ranks of one
    scheduler. servers: requests that its own devices serve at a time; 0: it runs on those of the replicas.
    """

    name: str
    where: Literal["before", "per_token"]
    servers: int
    ps: Callable[[int], int]


class Line:
    """Stages with devices of their own, one after the other. came, left: ps of each request, int64[stages, n], NEVER
    before; busy: ps of work of each stage, on all of its devices together.
    """

    def __init__(self, stages: Sequence[Stage], book: Book) -> None:
        self.stages, self._prompt = tuple(stages), book.prompt
        self.came, self.left = (np.full((len(stages), len(book.requests)), NEVER, dtype=np.int64) for _ in range(2))
        self.busy = [0] * len(stages)
        self._free: list[list[int]] = [[] for _ in stages]  # heaps of ps at which a device is free, of those in use
        self._passed = np.zeros(len(book.requests), dtype=np.int64)

    def enter(self, request: int, now: int) -> int | None:
        """A request comes to its next stage -> ps at which it leaves that; None where it is through. To be called in
        the order of time.
        """
        at = int(self._passed[request])
        if at == len(self.stages):
            return None
        stage, free = self.stages[at], self._free[at]
        takes = stage.ps(int(self._prompt[request]))
        begin = now if len(free) < stage.servers else max(now, heapq.heappop(free))
        heapq.heappush(free, begin + takes)
        if begin + takes >= LAST_TICK:
            raise beyond_clock(f"stage {stage.name} lets requests go too late")
        self.came[at, request], self.left[at, request] = now, begin + takes
        self.busy[at] += takes
        self._passed[request] += 1
        return begin + takes

    def waited(self, which: Ints) -> Ints:
        """int64[...] ps that requests were in all stages together, queues among it."""
        total: Ints = (self.left - self.came)[:, which].sum(axis=0)
        return total


class Inside:
    """Stages that steps of replicas wait for; `ways` ranks are of one scheduler. busy: ps of each, of all steps."""

    def __init__(self, stages: Sequence[Stage], book: Book, ways: int) -> None:
        self.stages, self._book, self._ways = tuple(stages), book, ways
        self.busy = [0] * len(stages)
        self._passed = np.zeros(len(book.requests), dtype=np.bool_)  # once, whatever comes of the request

    def ps(self, batch: Batch) -> int:
        """Ticks that a step takes longer: the slowest scheduler's, as others wait for it."""
        group, many = batch.rank // self._ways, batch.ranks // self._ways
        real = batch.phase != Phase.DUMMY
        tokens = np.bincount(group[real], weights=batch.query[real], minlength=many).astype(np.int64)
        begins = np.flatnonzero((batch.phase == Phase.PREFILL) & ~self._passed[batch.request])
        self._passed[batch.request[begins]] = True
        total = 0
        for number, stage in enumerate(self.stages):
            takes = np.zeros(many, dtype=np.int64)
            if stage.where == "per_token":
                takes[:] = [stage.ps(int(one)) if one else 0 for one in tokens]
            else:
                prompts = self._book.prompt[batch.request[begins]]
                np.add.at(takes, group[begins], [stage.ps(int(one)) for one in prompts])
            longest = int(takes.max(initial=0))
            self.busy[number] += longest
            total += longest
        return total


@dataclass(frozen=True)
class Staged:
    """A clock whose steps wait for stages, too."""

    clock: Clock
    inside: Inside

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        return self.clock.ps(batch) + self.inside.ps(batch)

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """See Clock."""
        return stepped(self, batch, grows, now, horizon, most, least)
