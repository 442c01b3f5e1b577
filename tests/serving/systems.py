"""Small serving systems whose steps take what a function says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from moesim.serving import Book, Clock, Given, Replica, Requests, Scheduler, Served, engine, serve
from moesim.serving.fleet import Outage
from moesim.serving.scaling import Scaling
from moesim.serving.stages import Inside, Stage, Staged
from moesim.serving.swap import HostMemory
from moesim.serving.transfer import Links
from moesim.step import Batch

MS = 10**9
BARE: dict[str, Any] = {"host_time": "0 s", "schedule_ahead": False}


def requests_of(arrival: npt.ArrayLike, prompt: npt.ArrayLike, output: npt.ArrayLike, concurrency: int = 0) -> Requests:
    at, asked, given = np.broadcast_arrays(*(np.atleast_1d(np.asarray(c, np.int64)) for c in (arrival, prompt, output)))
    return Requests(at.copy(), asked.copy(), given.copy(), concurrency)


def served(
    requests: Requests, step: Callable[[Batch], int], preset: str = "vllm", *, blocks: int = 10**6, replicas: int = 1,
    schedulers: int = 1, balancer: str = "round_robin", watch: Any = None, outages: Sequence[Outage] = (),
    scaling: Scaling | None = None, stages: Sequence[Stage] = (), ttft: float | None = None,
    host: HostMemory | None = None, **changes: Any,
) -> Served:  # fmt: skip
    """stages: those with servers come before the replicas, the steps of all replicas wait for the others."""
    settings = engine(preset, **{**BARE, **changes})
    pool = host.shared() if host else None

    def make(book: Book) -> Sequence[Replica]:
        clock: Clock = Given(step)
        if within := [stage for stage in stages if not stage.servers]:
            book.inside.append(Inside(within, book, 1))
            clock = Staged(clock, book.inside[-1])
        return [
            Replica([Scheduler(settings, book, blocks, ttft=ttft, host=host, pool=pool) for _ in range(schedulers)],
                    clock, 1, ahead=settings.schedule_ahead)
            for _ in range(replicas)
        ]  # fmt: skip

    before = [stage for stage in stages if stage.servers]
    return serve(requests, make, balancer, watch=watch, outages=outages, scaling=(scaling,), stages=before)


def by_tokens(batch: Batch) -> int:
    """1 ms, 10 us a token and 1 ns for every token of context."""
    return MS + 10**7 * batch.tokens + 1000 * int(batch.context.sum())


def split(
    requests: Requests, step: Callable[[Batch], int], links: Links, preset: str = "vllm", *,
    blocks: tuple[int, int] = (10**6, 10**6), replicas: tuple[int, int] = (1, 1), schedulers: int = 1,
    watch: Any = None, balancer: str = "round_robin", outages: Sequence[Outage] = (),
    scaling: Sequence[Scaling | None] = (), **changes: Any,
) -> Served:  # fmt: skip
    """The same with a pool that computes prompts and one that answers; a GPU for each scheduler."""
    settings = engine(preset, **{**BARE, **changes})

    def make(book: Book) -> Sequence[Replica]:
        return [
            Replica([Scheduler(settings, book, blocks[pool], hands_over=pool == 0) for _ in range(schedulers)],
                    Given(step), 1, ahead=settings.schedule_ahead, device=(pool * replicas[0] + number) * schedulers)
            for pool in (0, 1) for number in range(replicas[pool])
        ]  # fmt: skip

    return serve(
        requests, make, balancer, watch=watch, links=links, entry=replicas[0], outages=outages, scaling=scaling
    )


def in_stretches_and_steps(
    play: Callable[[], Served], names: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Served, Served]:
    """The same run with stretches of decodes in one go, and step by step: these columns of the book are the same."""
    whole = play()
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    single = play()
    for name in names:
        assert np.array_equal(*(getattr(one.book, name) for one in (whole, single))), name
    return whole, single
