"""omni-infer's placement pattern: [devices, expert layers, experts] of 0 and 1, as .npy or as `placement` in an .npz.

A device's slots are its experts in ascending order (the engine counts them by a cumulative sum), and devices may hold
different numbers, in every layer others. Source: omni-ai-npu/omni-infer @c8bc2bb, omni_planner/expert_mapping.py and
its placement patterns.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.layout import EMPTY, Placement
from moesim.placement.formats.format import Format, Frame, Written, check_once_per_rank, sealed
from moesim.placement.formats.source import Source, take
from moesim.routing.arrays import write_npz

KEY = "placement"


def recognise(source: Source) -> bool:
    """A bare array, or an archive with `placement`."""
    return source.suffix == ".npy" or KEY in source.names


def read(source: Source, frame: Frame) -> Placement:
    """Raises BadInput naming device, layer and expert."""
    where = f"{source.path} {KEY}" if source.suffix == ".npz" else str(source.path)
    pattern = _pattern(source.data if source.suffix == ".npy" else take(source, KEY), where)
    if frame.experts is not None and pattern.shape[2] != frame.experts:
        found = pattern.shape[2]
        way_out = f"a model with {found} experts, or a pattern of {frame.experts}"
        raise BadInput(f"is for {found} experts, not {frame.experts}", where=where, way_out=way_out)
    slots = pattern.sum(axis=(0, 2))
    there = np.arange(slots.max()) < slots[:, None]
    experts = np.full(there.shape, EMPTY, dtype=np.int64)
    ranks = np.full(there.shape, len(pattern) - 1, dtype=np.int32)
    _, ranks[there], experts[there] = np.nonzero(pattern.transpose(1, 0, 2))
    frame = Frame(frame.ranks, pattern.shape[2], frame.moe_layers)
    return sealed(experts, ranks, frame, len(pattern), where)


def _pattern(value: Any, where: str) -> npt.NDArray[np.int64]:
    if value.ndim != 3 or not value.size:
        found = f"has shape {list(value.shape)}, not [devices, layers, experts]"
        raise BadInput(found, where=where, way_out="the pattern of all devices in one array")
    wrong = np.argwhere((value != 0) & (value != 1))
    if len(wrong):
        device, layer, expert = wrong[0]
        raise BadInput(
            f"device {device}, layer {layer}, expert {expert} is {value[device, layer, expert]}, not 0 or 1",
            where=where,
            way_out="1 where the device holds the expert, and once at most; for replicas on one device another format",
        )
    return np.asarray(value).astype(np.int64)


def write(placement: Placement, frame: Frame, suffix: str) -> Written:
    """Raises BadInput where a GPU holds an expert twice."""
    check_once_per_rank(placement, "omni-infer")
    shape = (placement.num_ranks, placement.num_layers, placement.num_experts)
    pattern = np.zeros(shape, dtype=np.uint8 if suffix == ".npz" else np.int32)
    layer, slot = np.nonzero(placement.filled)
    pattern[placement.slot_rank[layer, slot], layer, placement.slot_expert[layer, slot]] = 1
    stream = io.BytesIO()
    if suffix == ".npz":
        write_npz(stream, placement=pattern)
    else:
        np.lib.format.write_array(stream, pattern, allow_pickle=False)
    return Written(stream.getvalue(), ("slots of a device stand in the order of its experts' numbers",))


OMNIINFER = Format("omniinfer", "omni-infer placement pattern", (".npy", ".npz"), recognise, read, write, even=False)
