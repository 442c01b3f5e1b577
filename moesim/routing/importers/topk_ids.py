"""Plain top-k ids: one array [tokens, layers, k] of experts, -1 for none, as .npy, .npz, safetensors or JSON lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim import atomic
from moesim.errors import BadInput
from moesim.routing.importers.bare import named_arrays, only_array
from moesim.routing.importers.format import Format, Options, all_layers, header_for, tokens_of, used_layers, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import RoutingTrace, make_trace


def read(path: Path, options: Options) -> RoutingTrace:
    """Tokens are one request in the file's order; layers full of zeros are dense. Raises BadInput."""
    ids = only_array(named_arrays(path), path)
    if ids.ndim != 3 or not ids.size:
        raise BadInput(f"holds {ids.dtype} {ids.shape}", where=path, way_out="whole numbers [tokens, layers, k]")
    ids = whole(ids, "experts", path)
    if int(ids.max()) < 0:
        raise BadInput("no token has an expert", where=path)
    layers = used_layers(ids, options)
    experts = int(ids[ids != NO_EXPERT].max(initial=0)) + 1
    header = header_for("topk-ids", options, path, layers, ids.shape[1], experts, ids.shape[2])
    return make_trace(header, ids[:, list(layers)], where=str(path))


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """int32, request after request; dense layers are zeros."""
    trace = tokens_of(record, path)
    wide = all_layers(trace)[trace.by_request.order].astype(np.int32)
    wide[wide == NO_EXPERT] = -1
    with atomic.file(path) as part, part.open("wb") as stream:
        np.save(stream, wide, allow_pickle=False)


TOPK_IDS = Format("topk-ids", "one array [tokens, layers, k] of expert ids (npy, npz, JSON)", True, read, write)
