"""A bar on the terminal while a placement is searched: incumbent, bound and gap of the strategy at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from moesim.placement import Progress


@contextmanager
def bar(stream: IO[str], time_limit: float | None) -> Iterator[Callable[[Progress], None] | None]:
    """A function that takes each Progress; None where the stream is no terminal."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield None
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
    """ "best 1.0213, bound 1, gap 2.13%" """
    bound = "no bound" if now.gap is None else f"bound {now.bound:.6g}, gap {now.gap:.2%}"
    return f"best {now.incumbent:.6g}, {bound}"
