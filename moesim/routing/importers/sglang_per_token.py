"""SGLang's recorder in mode `per_token`: ids of every token in every layer, physical, padded to 8 columns with -1.

The npz that `moesim trace unpack` makes of the .pt files of all ranks, one row a token: `topk_ids` [T, layers, 8],
`input_ids`, `positions`, `forward_pass_id`, `rank`, `forward_mode` [T], `sequence` [T] (number of the sequence within
its pass), and `last_physical_to_logical_map` [layers, slots]. The files do not name requests: a sequence continues the
request on the same rank whose next position it holds, the one that waited longest first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.arrays import read_npz, write_npz
from moesim.routing.importers.format import Format, Options, all_layers, header_for, layer_map, tokens_of, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace, make_trace

ROWS = ("input_ids", "positions", "forward_pass_id", "rank", "forward_mode", "sequence")
COLUMNS = 8
DECODE = 2  # ForwardMode.DECODE of SGLang; the other modes are kinds of prefill


def read(path: Path, options: Options) -> RoutingTrace:
    """Raises BadInput naming layer and token."""
    arrays = read_npz(path, ("topk_ids", "last_physical_to_logical_map", *ROWS))
    arrays = {name: whole(values, name, path) for name, values in arrays.items()}
    lengths = {name: len(arrays[name]) for name in ("topk_ids", *ROWS)}
    if len(set(lengths.values())) > 1 or any(arrays[name].ndim != 1 for name in ROWS):
        raise BadInput(f"columns of different lengths: {lengths}", where=path)
    ids = _logical(arrays["topk_ids"], arrays["last_physical_to_logical_map"], path)
    used = (ids >= 0).any(axis=(0, 2))
    layers = tuple(int(n) for n in np.flatnonzero(used))
    top_k = int((ids >= 0).sum(axis=2).max())
    if not top_k:
        raise BadInput("no token has an expert", where=path)
    kept = ids[:, list(layers), :top_k]
    header = header_for("sglang-per-token", options, path, layers, ids.shape[1], int(ids.max()) + 1, top_k)
    return make_trace(
        header,
        kept,
        request=match_requests(arrays),
        position=arrays["positions"],
        phase=(arrays["forward_mode"] == DECODE).astype(np.uint8),
        step=arrays["forward_pass_id"],
        source_rank=arrays["rank"],
        token_id=arrays["input_ids"],
        where=str(path),
    )


def _logical(ids: npt.NDArray[np.int64], to_logical: npt.NDArray[np.int64], path: Path) -> npt.NDArray[np.int64]:
    if ids.ndim != 3 or to_logical.ndim != 2 or ids.shape[1] != len(to_logical):
        raise BadInput(f"topk_ids {ids.shape} and map {to_logical.shape} do not fit", where=path)
    out = (ids < -1) | (ids >= to_logical.shape[1])
    if out.any():
        token, layer, choice = np.argwhere(out)[0]
        raise BadInput(f"layer {layer}, token {token}: slot {ids[token, layer, choice]} is out of range", where=path)
    layer = np.arange(ids.shape[1])[None, :, None]
    return np.where(ids < 0, -1, to_logical[layer, np.maximum(ids, 0)])


def match_requests(arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """int64[T] request of each token; rows of a sequence stand together in ascending position."""
    which = np.stack([arrays[name] for name in ("forward_pass_id", "rank", "sequence")], axis=1)
    edges = np.flatnonzero((which[1:] != which[:-1]).any(axis=1)) + 1
    request = np.empty(len(which), dtype=np.int64)
    waiting: dict[tuple[int, int], list[int]] = {}
    known = 0
    for start, stop in zip(np.r_[0, edges], np.r_[edges, len(which)], strict=True):
        rank, first, last = int(which[start, 1]), int(arrays["positions"][start]), int(arrays["positions"][stop - 1])
        queue = waiting.get((rank, first), [])
        known += not queue
        number = queue.pop(0) if queue else known - 1
        request[start:stop] = number
        waiting.setdefault((rank, last + 1), []).append(number)
    return request


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """With the trivial placement; a trace without token ids gets zeros. Raises BadInput for more than 8 choices."""
    trace = tokens_of(record, path)
    if trace.header.top_k > COLUMNS:
        raise BadInput(f"top-{trace.header.top_k} does not fit into {COLUMNS} columns", where=path)
    layers, total = layer_map(trace.header)
    order, sequence = _file_order(trace)
    ids = np.full((trace.tokens, total, COLUMNS), -1, dtype=np.int32)
    ids[:, list(layers), : trace.header.top_k] = all_layers(trace)[:, list(layers)].astype(np.int32)
    ids[ids == 65535] = -1
    write_npz(
        path,
        topk_ids=ids[order],
        last_physical_to_logical_map=np.tile(np.arange(trace.header.num_experts), (total, 1)),
        input_ids=(trace.token_id if trace.token_id is not None else np.zeros(trace.tokens, np.int32))[order],
        positions=trace.position[order],
        forward_pass_id=trace.step[order],
        rank=trace.source_rank[order],
        forward_mode=np.where(trace.phase[order] == 1, DECODE, 1),
        sequence=sequence,
    )


def _file_order(trace: RoutingTrace) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(order, sequence) int64[T]: rows by pass, rank, first appearance and position; numbers of their sequences."""
    key = np.stack([trace.step, trace.source_rank, trace.request], axis=1)
    _, first, which = np.unique(key, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((trace.position, first[which], trace.source_rank, trace.step))
    begins = np.r_[True, np.diff(first[which][order]) != 0]
    resets = np.r_[True, (np.diff(key[order, :2], axis=0) != 0).any(axis=1)]
    number = np.cumsum(begins) - 1
    return order, number - number[np.flatnonzero(resets)][np.cumsum(resets) - 1]


SGLANG_PER_TOKEN = Format("sglang-per-token", "expert distribution recorder, mode per_token", True, read, write)
