"""vllm-ascend's expert map: {moe_layer_count, layer_list: [{layer_id, device_count, device_list: [...]}]}.

Each device names its experts in the order of its slots; the engine makes a table of them, so devices are even, and
looks a slot up by expert, so a device holds an expert once. Source: vllm-project/vllm-ascend, ops/expert_load_balancer.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.formats.format import Format, Frame, Written, check_even, check_once_per_rank, even_placement
from moesim.placement.formats.source import Source, table, take

KEY = "layer_list"


def recognise(source: Source) -> bool:
    """A mapping with layer_list."""
    return KEY in source.names


def read(source: Source, frame: Frame) -> Placement:
    """Raises BadInput naming layer and device."""
    layers, where = take(source, KEY), f"{source.path} {KEY}"
    if not isinstance(layers, list) or not layers:
        way_out = "[{device_list: [{device_expert: [0, 1, ...]}, ...]}, ...]"
        raise BadInput("is no list of layers", where=where, way_out=way_out)
    if (told := take(source, "moe_layer_count")) != len(layers):
        way_out = f"moe_layer_count: {len(layers)}, if none is missing"
        raise BadInput(f"holds {len(layers)} layers, moe_layer_count says {told!r:.40}", where=where, way_out=way_out)
    rows = [_layer(layer, f"{where}[{number}]") for number, layer in enumerate(layers)]
    for number, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise BadInput(
                f"has {row.shape[0]} devices of {row.shape[1]} slots, layer 0 {rows[0].shape[0]} of {rows[0].shape[1]}",
                where=f"{where}[{number}]",
                way_out="as many devices and slots in every layer",
            )
    devices = len(rows[0])
    if frame.ranks not in (None, devices):
        raise BadInput(f"is for {devices} GPUs, not {frame.ranks}", where=where, way_out=f"{devices} GPUs")
    frame = Frame(devices, frame.experts, frame.moe_layers)
    return even_placement(np.stack([row.ravel() for row in rows]), frame, where)


def _layer(layer: Any, where: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64[devices, slots of one]."""
    devices = layer.get("device_list") if isinstance(layer, dict) else None
    if not isinstance(devices, list) or not all(isinstance(one, dict) for one in devices):
        way_out = "device_list: [{device_expert: [0, 1, ...]}, ...], an entry a GPU"
        raise BadInput("has no device_list", where=where, way_out=way_out)
    return table([one.get("device_expert") for one in devices], f"{where}.device_list")


def write(placement: Placement, frame: Frame, suffix: str) -> Written:
    """Raises BadInput for uneven GPUs and for an expert that stands twice on one."""
    check_even(placement, "vllm-ascend")
    check_once_per_rank(placement, "vllm-ascend")
    rows = placement.slot_expert.reshape(placement.num_layers, placement.num_ranks, -1).tolist()
    layers = [
        {
            "layer_id": number,
            "device_count": len(row),
            "device_list": [{"device_id": device, "device_expert": experts} for device, experts in enumerate(row)],
        }
        for number, row in enumerate(rows)
    ]
    text = json.dumps({"moe_layer_count": len(layers), KEY: layers}, separators=(",", ":"))
    notes = ["it is read by vllm-ascend's own model runner (expert_map_path)"]
    if placement.num_slots > placement.num_experts:
        notes.append("on Atlas A2 vllm-ascend takes no redundant experts")
    return Written(text.encode() + b"\n", tuple(notes))


VLLM_ASCEND = Format(
    "vllm-ascend", "vllm-ascend expert map", (".json",), recognise, read, write, dispatch="vllm-ascend"
)
