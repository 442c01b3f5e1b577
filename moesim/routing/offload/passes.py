"""A trace as the decode passes of batches: the first half of each request is its prompt, the rest is decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import RoutingTrace

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
QUEUE: Final = 4  # batches that wait when one is put together


class Passes(NamedTuple):
    """used bool[P, layers, E]: experts that any token of the pass takes; tokens int64[P]; token int64[P]: the id of
    the only token of a pass, -1 where there are several or the trace has none. domain int64[P]: that of all its
    requests, -1 where they differ.
    """

    used: Bools
    tokens: Ints
    token: Ints
    domain: Ints

    @property
    def unique(self) -> float:
        """Experts of a layer that a pass needs, mean over passes and layers."""
        return float(self.used.sum(axis=2).mean())


def passes_of(trace: RoutingTrace, batch: int, compose: str, most: int) -> tuple[Passes, int]:
    """`batch` requests at a time, put together by `compose` -> their first `most` passes, and how many there are.

    A batch ends with its longest request. Raises BadInput where no request has a second token.
    """
    index = trace.by_request
    long = np.flatnonzero(index.length >= 2)
    if not len(long):
        raise BadInput("no request has a second token, so nothing is decoded", where=trace.where)
    half = index.length[long] // 2
    order = COMPOSE[compose](_prompts(trace, index.start[long], half), batch)
    found: list[Ints] = []
    for first in range(0, len(long), batch):
        group = order[first : first + batch]
        start, length = index.start[long][group] + half[group], index.length[long][group] - half[group]
        for at in range(int(length.max())):
            found.append(index.order[start[length > at] + at])
    return _passes(trace, found[:most]), len(found)


def _passes(trace: RoutingTrace, rows: list[Ints]) -> Passes:
    header = trace.header
    used = np.zeros((len(rows), header.moe_layers, header.num_experts + 1), dtype=np.bool_)
    layers = np.arange(header.moe_layers)[:, None]
    for number, some in enumerate(rows):
        chosen = np.where(trace.expert[some] == NO_EXPERT, header.num_experts, trace.expert[some])
        used[number, layers, chosen] = True
    tokens = np.array([len(some) for some in rows])
    return Passes(used[:, :, :-1], tokens, _shared(trace.token_id, rows, most=1), _shared(trace.domain, rows))


def _shared(column: npt.NDArray[Any] | None, rows: list[Ints], most: int | None = None) -> Ints:
    """int64[P]: what all rows of a pass have; -1 where they differ, are more than `most`, or nothing is known."""
    if column is None:
        return np.full(len(rows), -1, dtype=np.int64)
    same = [len(some) <= (most or len(some)) and bool((column[some] == column[some[0]]).all()) for some in rows]
    return np.array([column[some[0]] if one else -1 for one, some in zip(same, rows, strict=True)], dtype=np.int64)


def _prompts(trace: RoutingTrace, start: Ints, length: Ints) -> Floats:
    """float64[requests, layers x experts]: the share of each prompt's choices that each expert has, of length 1."""
    size = trace.header.num_experts
    found = np.zeros((len(start), trace.header.moe_layers * size))
    offset = np.arange(trace.header.moe_layers)[:, None] * size
    for number, (first, many) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
        chosen = trace.expert[trace.by_request.order[first : first + many]].astype(np.int64)
        kept = (chosen + offset)[chosen != NO_EXPERT]
        found[number] = np.bincount(kept, minlength=found.shape[1])
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)
    return found


def _as_they_come(prompts: Floats, batch: int) -> Ints:
    return np.arange(len(prompts))


def _alike(prompts: Floats, batch: int) -> Ints:
    """Batches out of QUEUE times as many requests that wait, all of which are served before others come: the first that
    is left, and those whose prompts used the same experts as the batch so far.
    """
    size = QUEUE * batch
    queues = range(0, len(prompts), size)
    return np.concatenate([first + _grouped(prompts[first : first + size], batch) for first in queues])


def _grouped(prompts: Floats, batch: int) -> Ints:
    left, order = np.ones(len(prompts), dtype=np.bool_), list[int]()
    while left.any():
        centre = np.zeros(prompts.shape[1])
        for member in range(min(batch, int(left.sum()))):
            near = prompts @ centre if member else -np.arange(len(prompts), dtype=np.float64)
            chosen = int(np.argmax(np.where(left, near, -np.inf)))
            left[chosen] = False
            order.append(chosen)
            centre += prompts[chosen]
    return np.array(order, dtype=np.int64)


COMPOSE: Final[dict[str, Callable[[Floats, int], Ints]]] = {"fifo": _as_they_come, "affinity": _alike}
