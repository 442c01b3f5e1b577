"""TensorRT-LLM's moe_load_balancer.yaml: num_slots, initial_global_assignments {layer: experts by slot}.

Layers are numbered as in the model; rank r owns num_slots / ep_size slots from r * num_slots / ep_size on.
Source: NVIDIA/TensorRT-LLM @195a8bd, examples/ep_load_balancer/generate_eplb_config.py, and `MoeLoadBalancerConfig`.
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput, unknown_name
from moesim.layout import Placement
from moesim.placement.formats.format import Format, Frame, Written, check_even, even_placement
from moesim.placement.formats.source import Source, row_of, take

KEY = "initial_global_assignments"
KNOWN = ("num_slots", KEY, "layer_updates_per_iter")


def recognise(source: Source) -> bool:
    """YAML with assignments."""
    return KEY in source.names


def read(source: Source, frame: Frame) -> Placement:
    """Raises BadInput naming the key; keys that TensorRT-LLM would refuse are refused."""
    strange = sorted(source.names - set(KNOWN))
    if strange:
        raise unknown_name("key", strange[0], KNOWN, where=source.path)
    assigned, slots = take(source, KEY), take(source, "num_slots")
    where = f"{source.path} {KEY}"
    if not isinstance(assigned, dict) or not assigned or not all(name.isdecimal() for name in assigned):
        raise BadInput(
            "is no mapping from layer numbers to lists of experts", where=where, way_out="{3: [0, 1, 2, ...]}"
        )
    layers = sorted(map(int, assigned))
    if frame.moe_layers is not None and tuple(layers) != frame.moe_layers:
        missing = sorted(set(frame.moe_layers) ^ set(layers))
        raise BadInput(
            f"layer {missing[0]} is not in both the file and the model's expert layers", where=where,
            way_out=f"a row for each of {_span(frame.moe_layers)}, and no other",
        )  # fmt: skip
    rows = [row_of(assigned[str(layer)], f"{where}.{layer}") for layer in layers]
    for layer, row in zip(layers, rows, strict=True):
        if len(row) != slots:
            raise BadInput(
                f"has {len(row)} experts, num_slots is {slots!r}", where=f"{where}.{layer}",
                way_out=f"num_slots: {len(row)}, if all rows have so many",
            )  # fmt: skip
    return even_placement(np.stack(rows), frame, where)


def _span(layers: tuple[int, ...]) -> str:
    run = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"layers {layers[0]} to {layers[-1]}" if run else f"layers {', '.join(map(str, layers))}"


def write(placement: Placement, frame: Frame, suffix: str) -> Written:
    """A static assignment (no updates at run time). Raises BadInput for uneven GPUs."""
    check_even(placement, "TensorRT-LLM")
    layers = frame.moe_layers or tuple(range(placement.num_layers))
    rows = zip(layers, placement.slot_expert.tolist(), strict=True)
    lines = [f"num_slots: {placement.num_slots}", f"{KEY}:"]
    lines += [f"  {layer}: [{', '.join(map(str, row))}]" for layer, row in rows]
    lines.append("layer_updates_per_iter: 0")
    notes = [f"for --ep_size {placement.num_ranks}; as moe_config.load_balancer of TensorRT-LLM"]
    notes.append(f"with multi-token prediction its layer ({frame.total_layers or 'after the last'}) needs a row too")
    if frame.moe_layers is None:
        notes.append("no model was named: layers are numbered from 0, not as in the model (--model)")
    return Written(("\n".join(lines) + "\n").encode(), tuple(notes))


TRTLLM = Format("trtllm", "TensorRT-LLM moe_load_balancer.yaml", (".yaml", ".yml"), recognise, read, write)
