"""What is drawn beside the document of a serving run, and its rows: of the first seed, small and plain."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.report.explain import PARTS
from moesim.serving import Replica, Served, State
from moesim.serving.metrics import counted, e2el, tpot, ttft
from moesim.serving.run import POOLS
from moesim.serving.series import replica_curves
from moesim.studies.serving import ServeResult
from moesim.units import from_ps

POINTS: Final = 400  # of a curve
REPLICAS: Final = 8  # drawn one by one, as many of each pool, of those that took a step


def serve_pictures(result: ServeResult) -> dict[str, Any]:
    """The name, distributions of latencies (s), what replicas did over time, limits."""
    once = result.first
    book, drawn = once.served.book, list(_drawn(once.served))
    which, (gaps, many) = counted(book, once.since), book.gaps(once.since)
    columns = {"ttft": ttft(book, which), "tpot": tpot(book, which), "e2el": e2el(book, which)}
    return {
        "name": result.name,
        "parts": dict(PARTS),
        "limits": once.built.scenario.slo.limits,
        "cdf": {
            **{name: _cdf(np.sort(c[~np.isnan(c)]), None) for name, c in columns.items()},
            "itl": _cdf(from_ps(gaps), many),
        },
        "replicas": [{"name": name, **_history(replica)} for name, replica in drawn],
        "undrawn": sum(len(one.history) > 0 for one in once.served.replicas) - len(drawn),
        "scaled": {
            f"{name}replicas".replace("_", " "): {"seconds": from_ps(np.array(times)).tolist(), "paid": list(paid)}
            for name, curve in replica_curves(once.served).items()
            for times, paid in [zip(*curve, strict=True)]
        },
        "warmup": once.since / 1e12,
    }


def _drawn(served: Served) -> Iterator[tuple[str, Replica]]:
    """The first replicas of each pool, and what they are called."""
    pools = served.pools
    for name, pool in zip(("replica",) if len(pools) == 1 else POOLS, pools, strict=True):
        lead = name.replace("_", " replica")
        worked = [(f"{lead} {number}", one) for number, one in enumerate(pool) if len(one.history)]
        yield from worked[: REPLICAS // len(pools)]


def _cdf(seconds: npt.NDArray[np.float64], many: npt.NDArray[np.signedinteger[Any]] | None) -> dict[str, list[float]]:
    """Ascending seconds, each `many` times -> points of their distribution, its ends among them."""
    if not len(seconds):
        return {"seconds": [], "share": []}
    weights = np.ones(len(seconds)) if many is None else many
    share = np.cumsum(weights) / np.sum(weights)
    at = np.unique(np.searchsorted(share, np.linspace(0, 1, POINTS)).clip(0, len(seconds) - 1))
    return {"seconds": [float(one) for one in seconds[at]], "share": [float(one) for one in share[at]]}


def _history(replica: Replica) -> dict[str, list[float]]:
    """s, running, waiting, share of KV at ends of steps, or at as many times as a curve has points."""
    every = replica.history
    total = sum(one.blocks.total for one in replica.schedulers)
    few = len(every) <= POINTS
    ends = [sample.end for sample in every] if few else np.linspace(every[0].end, every[-1].end, POINTS)
    times = np.array(ends, dtype=np.int64)
    running, waiting, blocks = every.at(times).T.tolist()
    return {"seconds": from_ps(times).tolist(), "running": running, "waiting": waiting,
            "kv": [one / total for one in blocks]}  # fmt: skip


def requests_csv(result: ServeResult) -> str:
    """A row a request: when it was sent, and when what happened to it (s); empty where it did not."""
    once = result.first
    book = once.served.book
    times = {"sent_s": book.sent, "started_s": book.started, "first_token_s": book.first, "ended_s": book.ended}
    if once.pools:
        times |= {"prefilled_s": book.prefilled, "departed_s": book.departed, "landed_s": book.landed}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    classes = book.requests.classes
    names = [[classes.names[kind]] for kind in classes.kind.tolist()] if classes else [[]] * len(book.requests)
    follows = book.requests.follows
    talks = list(zip(follows.session.tolist(), follows.turn.tolist(), strict=True)) if follows else [()] * len(names)
    head = ["request", "input", "output", *times, "replica", "preempted", "reused", "counted", "state"]
    writer.writerow([*head, *(["class"] if classes else []), *(["session", "turn"] if follows else [])])
    shown = [[f"{at / 1e12:.12g}" if at >= 0 else "" for at in column.tolist()] for column in times.values()]
    whole = (book.prompt, book.output, book.replica, book.preempted, book.reused, book.state)
    prompt, output, replica, preempted, reused, state = (column.tolist() for column in whole)
    kept = (book.sent >= once.since).tolist()
    for request, at in enumerate(zip(*shown, strict=True)):
        done = kept[request] and state[request] == State.FINISHED
        ending = (replica[request], preempted[request], reused[request], int(done), State(state[request]).name.lower())
        writer.writerow([request, prompt[request], output[request], *at, *ending, *names[request], *talks[request]])
    return table.getvalue()
