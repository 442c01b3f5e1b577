"""A served run over time: what its steps did in windows of equal length, from the first request to the last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from moesim.serving.book import State
from moesim.serving.cadence import NEVER
from moesim.serving.requests import Ints
from moesim.serving.run import POOLS, Served
from moesim.units import from_ps

WINDOWS: Final = 32


def series(served: Served) -> list[dict[str, float]]:
    """A row a window, warm-up included. end_s: when it ends; running, waiting, kv_blocks: of all replicas, at its end;
    steps that ended, and requests that were sent and answered in it; mean_ttft_ms: of answered requests whose first
    token came in it, left out where there was none; replicas: paid at its end, of pools that scale.
    """
    book = served.book
    edges = np.linspace(0, int(book.ended.max()), WINDOWS + 1)[1:].astype(np.int64)
    states = sum((replica.history.at(edges) for replica in served.replicas), np.zeros((WINDOWS, 3), dtype=np.int64))
    ends = [cadence.ends(0, len(cadence)) for cadence in book.cadences]
    steps = sum((_counted(one, edges) for one in ends), np.zeros(WINDOWS, dtype=np.int64))
    first = np.flatnonzero((book.state == State.FINISHED) & (book.first != NEVER))
    came = _window(book.first[first], edges)
    waited = np.bincount(came, weights=from_ps(book.first[first] - book.sent[first]), minlength=WINDOWS)
    many = np.bincount(came, minlength=WINDOWS)
    scaled = [(f"{name}replicas", _at(curve, edges)) for name, curve in replica_curves(served).items()]
    sent, answered = (_counted(column[column != NEVER], edges) for column in (book.sent, book.ended))
    return [
        {
            "end_s": float(from_ps(edges[row])), "running": int(states[row, 0]), "waiting": int(states[row, 1]),
            "kv_blocks": int(states[row, 2]), "steps": int(steps[row]), "sent": int(sent[row]),
            "answered": int(answered[row]),
            **({"mean_ttft_ms": float(waited[row] / many[row] * 1e3)} if many[row] else {}),
            **{name: int(values[row]) for name, values in scaled},
        }
        for row in range(WINDOWS)
    ]  # fmt: skip


def replica_curves(served: Served) -> dict[str, list[tuple[int, int]]]:
    """By the lead of a pool's names: (ps, replicas that are paid from then on), of pools that scale."""
    scalers = served.fleet.scalers if served.fleet else ()
    lead = {0: "" if served.entry is None else POOLS[0], served.entry: POOLS[1]}
    return {lead[one.numbers.start]: one.curve(served.end + 1) for one in scalers}


def _at(curve: Sequence[tuple[int, int]], edges: Ints) -> Ints:
    """int64[windows]: the last value of a curve at each of these times."""
    times, values = np.array(curve, dtype=np.int64).T
    found: Ints = values[np.searchsorted(times, edges, side="right") - 1]
    return found


def _window(at: Ints, edges: Ints) -> Ints:
    """int64[...]: the window that each of these times falls into, its end belonging to it."""
    found: Ints = np.searchsorted(edges, at).clip(max=len(edges) - 1)
    return found


def _counted(at: Ints, edges: Ints) -> Ints:
    """int64[windows]: how many of these times fall into each."""
    return np.bincount(_window(at, edges), minlength=len(edges)).astype(np.int64)
