"""SGLang's `--init-expert-location FILE.json`: physical_to_logical_map, a row for every layer of the model.

Dense layers have a row too, and it must name every expert (static dispatch picks a replica of each). GPU g owns slots
g * n .. g * n + n - 1. Source: sgl-project/sglang @01fec5c, python/sglang/srt/eplb/expert_location.py.
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.formats.format import Format, Frame, Written, check_even, even_placement
from moesim.placement.formats.source import Source, mapping_text, table, take

KEY = "physical_to_logical_map"


def recognise(source: Source) -> bool:
    """A mapping with the map and nothing of vLLM's beside it."""
    return source.suffix == ".json" and source.names == {KEY}


def read(source: Source, frame: Frame) -> Placement:
    """Rows of dense layers are dropped where the model says which they are. Raises BadInput."""
    where = f"{source.path} {KEY}"
    rows = table(take(source, KEY), where)
    if frame.moe_layers is not None:
        total = frame.total_layers or len(frame.moe_layers)
        if len(rows) != total:
            raise BadInput(
                f"has {len(rows)} rows, SGLang wants one for each of {total} layers", where=where,
                way_out="rows for dense layers too, which are not read",
            )  # fmt: skip
        rows = rows[list(frame.moe_layers)]
    return even_placement(rows, frame, where)


def write(placement: Placement, frame: Frame, suffix: str) -> Written:
    """Dense layers get the map that SGLang starts with. Raises BadInput for uneven GPUs."""
    check_even(placement, "SGLang")
    layers = frame.moe_layers or tuple(range(placement.num_layers))
    total = frame.total_layers or len(layers)
    rows = np.tile(np.arange(placement.num_slots) % placement.num_experts, (total, 1))
    rows[list(layers)] = placement.slot_expert
    redundant = placement.num_slots - placement.num_experts
    notes = [f"start SGLang with --ep-size {placement.num_ranks} --ep-num-redundant-experts {redundant}"]
    if frame.moe_layers is None:
        notes.append("no model was named: if it has dense layers, SGLang wants their rows too (--model)")
    return Written(mapping_text({KEY: rows}), tuple(notes))


SGLANG = Format("sglang", "SGLang --init-expert-location", (".json",), recognise, read, write, dispatch="sglang")
