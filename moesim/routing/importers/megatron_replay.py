"""Megatron core's routing replay, `get_recorded_data()`: one [tokens, k] array of ids a MoE layer, saved by its user.

An npz (or safetensors, or JSON object) of arrays `layer_3`: numbers of the model's layers; or counted from 0 on, where
a model is given that has as many layers with experts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.errors import BadInput
from moesim.routing.arrays import write_npz
from moesim.routing.importers.bare import by_layer, named_arrays, stacked
from moesim.routing.importers.format import Format, Options, header_for, layer_map, tokens_of, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import PHASES, RoutingTrace, make_trace


def read(path: Path, options: Options) -> RoutingTrace:
    """Tokens of one training step in their order. Raises BadInput."""
    layers = by_layer(named_arrays(path))
    if not layers:
        raise BadInput("holds no arrays named layer_0, layer_1 ...", where=path)
    ids = whole(stacked(layers, path), "experts", path)
    if ids.ndim != 3 or int(ids.max()) < 0:
        raise BadInput(f"layers are {ids.shape[1:]}", where=path, way_out="[tokens, k] ids of each")
    numbers = tuple(layers)
    if options.model is not None and numbers == tuple(range(len(options.model.moe_layers))):
        numbers = tuple(options.model.moe_layers)
    header = header_for("megatron-replay", options, path, numbers, numbers[-1] + 1, int(ids.max()) + 1, ids.shape[2])
    return make_trace(header, ids.transpose(1, 0, 2), phase=PHASES.index("train"), where=str(path))


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """Request after request, one array a layer."""
    trace = tokens_of(record, path)
    ids = trace.expert[trace.by_request.order].astype(np.int32)
    ids[ids == NO_EXPERT] = -1
    write_npz(path, **{f"layer_{layer}": ids[:, number] for number, layer in enumerate(layer_map(trace.header)[0])})


MEGATRON_REPLAY = Format("megatron-replay", "arrays layer_i [tokens, k] of routing replay", True, read, write)
