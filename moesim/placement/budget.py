"""Budget: how long a strategy may search, with which seed, and whom it tells what it has found."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple

import numpy as np

from moesim import streams
from moesim.layout import Placement
from moesim.placement.solution import NO_BOUND, Answer, Bound


class Progress(NamedTuple):
    """One line of a progress bar; gap is None without a bound. said: how far it is, where that is known."""

    strategy: str
    seconds: float
    incumbent: float
    bound: float
    gap: float | None
    said: str = ""


@dataclass
class Budget:
    """A strategy asks `expired` between steps and offers each better answer; both return soon after Ctrl-C.

    seconds: wall clock, None for no limit. progress: called with each better incumbent or bound. cut: whether somebody
    asked and was told to stop; who never asks (EPLB) is never cut short.
    """

    seconds: float | None = None
    seed: int = 0
    strategy: str = ""
    progress: Callable[[Progress], None] | None = None
    begun: float = field(default_factory=time.monotonic)
    interrupted: bool = False
    best: Answer | None = None
    incumbent: float = np.inf
    bound: Bound = NO_BOUND
    cut: bool = False

    @property
    def elapsed(self) -> float:
        """Seconds since the strategy began."""
        return time.monotonic() - self.begun

    @property
    def remaining(self) -> float:
        """Seconds that are left, infinite without a limit, 0 after Ctrl-C."""
        if self.interrupted:
            return 0.0
        return np.inf if self.seconds is None else max(self.seconds - self.elapsed, 0.0)

    @property
    def expired(self) -> bool:
        """Whether to stop and answer with the best found."""
        self.cut |= self.remaining <= 0
        return self.remaining <= 0

    def say(self, said: str) -> None:
        """How far the work is, for whoever shows progress."""
        if self.progress is not None:
            self.progress(Progress(self.strategy, self.elapsed, self.incumbent, self.bound.value, None, said))

    def offer(self, placement: Placement, objective: float, bound: Bound = NO_BOUND) -> None:
        """A feasible placement with its objective, and a bound where one is proved; the best of each is kept."""
        self.bound = self.bound.tighter(bound)
        if objective < self.incumbent:
            self.incumbent, self.best = objective, Answer(placement)
        if self.progress is not None:
            gap = self.incumbent / self.bound.value - 1 if self.bound.value > 0 else None
            self.progress(Progress(self.strategy, self.elapsed, self.incumbent, self.bound.value, gap))

    def stream(self, *name: str | int) -> np.random.Generator:
        """The random generator of one purpose."""
        return streams.stream(self.seed, "placement", self.strategy, *name)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """The first Ctrl-C asks the strategy to answer, the second one ends it. Only the main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask_to_answer)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask_to_answer(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
