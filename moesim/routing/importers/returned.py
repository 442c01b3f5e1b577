"""Routed experts that a server returns with each response: what SGLang's and vLLM's answers have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.importers.format import Options, header_for, used_layers, whole
from moesim.routing.trace import RoutingTrace, make_trace


def trace_of(
    name: str, path: Path, options: Options, requests: list[npt.NDArray[Any]], starts: list[int], prompts: list[int]
) -> RoutingTrace:
    """requests [T_i, layers, k] with the position of their first row and the prompt lengths -> RoutingTrace.

    Raises BadInput naming the request where shapes differ.
    """
    if not requests or not sum(len(ids) for ids in requests):
        raise BadInput("holds no routed experts", where=path)
    for number, ids in enumerate(requests):
        if ids.ndim != 3 or ids.shape[1:] != requests[0].shape[1:]:
            raise BadInput(f"request {number}: shape {ids.shape} differs from {requests[0].shape}", where=path)
    joined = np.concatenate([whole(ids, "experts", path) for ids in requests])
    if joined.min() < 0:
        raise BadInput(f"names expert {joined.min()}", where=path)
    layers = used_layers(joined, options)
    header = header_for(name, options, path, layers, joined.shape[1], int(joined.max()) + 1, joined.shape[2])
    lengths = [len(ids) for ids in requests]
    position = np.concatenate([start + np.arange(n) for start, n in zip(starts, lengths, strict=True)])
    return make_trace(
        header,
        joined[:, list(layers)],
        request=np.repeat(np.arange(len(requests)), lengths),
        position=position,
        phase=(position >= np.repeat(prompts, lengths)).astype(np.uint8),
        where=str(path),
    )


def by_request(trace: RoutingTrace) -> list[npt.NDArray[np.int64]]:
    """The rows of each request in the order of position."""
    index = trace.by_request
    return [index.order[s : s + n] for s, n in zip(index.start, index.length, strict=True)]


def prompt_length(trace: RoutingTrace, rows: npt.NDArray[np.int64]) -> int:
    """The position of the first decoded token of a request; its end where none was decoded."""
    decoded = trace.position[rows][trace.phase[rows] == 1]
    return int(decoded[0]) if len(decoded) else int(trace.position[rows][-1]) + 1
