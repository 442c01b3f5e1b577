"""What is being done, on the terminal while it takes long: a bar for a search, one line for whatever exceeds 2 s."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from moesim.placement import Progress

PATIENCE: Final = 2.0  # seconds in which nothing is said
RARER: Final = 2.0  # into a file, the line comes again after so many times the wait
BLANK: Final = 78
FIRST: Final = ", after compiling it, once (half a minute)"


class Ticker:
    """A line that says what is being done and for how long, from PATIENCE seconds on.

    On a terminal it is rewritten every half second and wiped at the end; elsewhere it is written after 2, 4, 8 ... s.
    """

    def __init__(self, stream: IO[str], what: str, patience: float | None = None) -> None:
        self.stream, self.what, self.patience = stream, what, PATIENCE if patience is None else patience
        self.begun, self.stage, self.over = time.monotonic(), "", threading.Event()
        self.thread = threading.Thread(target=self._tick, daemon=True)

    def tell(self, stage: str) -> None:
        """What begins now."""
        self.stage = stage

    def line(self) -> str:
        """ "moesim run dsv3: placing experts (4 s)" """
        stage = f": {self.stage}" if self.stage else ""
        return f"{self.what}{stage} ({time.monotonic() - self.begun:.0f} s)"

    def _tick(self) -> None:
        wait, terminal, shown = self.patience, self.stream.isatty(), False
        while not self.over.wait(wait):
            self.stream.write(f"\r{self.line()[:BLANK]:{BLANK}}" if terminal else f"{self.line()}\n")
            self.stream.flush()
            wait, shown = (0.5 if terminal else wait * RARER), True
        if shown and terminal:
            self.stream.write(f"\r{'':{BLANK}}\r")
            self.stream.flush()


@contextmanager
def told(stream: IO[str], what: str, patience: float | None = None) -> Iterator[Callable[[str], None]]:
    """A function that takes the name of each stage; the line goes with the block. patience: seconds."""
    ticker = Ticker(stream, what, patience)
    ticker.thread.start()
    try:
        yield ticker.tell
    finally:
        ticker.over.set()
        ticker.thread.join()


@contextmanager
def bar(stream: IO[str], time_limit: float | None) -> Iterator[Callable[[Progress], None]]:
    """A function that takes each Progress: a bar on a terminal, else the line of `told`."""
    console = Console(file=stream)
    if not console.is_terminal:
        with told(stream, "moesim place") as tell_stage:
            yield lambda now: tell_stage(f"{now.strategy}, {words(now)}")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[found]}"))
    with Bars(*columns, console=console, transient=True) as bars:
        tasks = {"": bars.add_task("reading", total=None, found="")}

        def tell(now: Progress) -> None:
            if now.strategy not in tasks:
                bars.remove_task(tasks.popitem()[1])
                tasks[now.strategy] = bars.add_task(now.strategy, total=time_limit, found="")
            bars.update(tasks[now.strategy], completed=now.seconds, found=words(now))

        yield tell


def words(now: Progress) -> str:
    """ "best 1.0213, bound 1, gap 2.13%", or how far it is."""
    if now.said:
        return now.said
    bound = "no bound" if now.gap is None else f"bound {now.bound:.6g}, gap {now.gap:.2%}"
    return f"best {now.incumbent:.6g}, {bound}"
