"""vLLM's EplbState: physical_to_logical_map, logical_to_physical_map, logical_replica_count of its expert layers.

Source: vllm-project/vllm @0014ec6, vllm/distributed/eplb/eplb_state.py. A bare list of rows, one an expert layer, is
what vLLM pull requests 49572 and 53022 propose to read at start; it is read here too.
"""

from __future__ import annotations

from moesim.layout import Placement
from moesim.placement.formats.format import Format, Frame, Written, even_placement
from moesim.placement.formats.replicas import Names, as_file, read_tables, write_tables
from moesim.placement.formats.source import Source, table

NAMES = Names("physical_to_logical_map", "logical_to_physical_map", "logical_replica_count")
NOTE = "vLLM 0.33 starts without a placement file: these are the tables of its EplbState, to be set by code of yours"


def recognise(source: Source) -> bool:
    """The three tables, or at least one that SGLang's files lack; or a bare list of rows."""
    more = {NAMES.expert_slots, NAMES.replicas} & source.names
    return isinstance(source.data, list) or (NAMES.slot_expert in source.names and bool(more))


def read(source: Source, frame: Frame) -> Placement:
    """Raises BadInput."""
    if isinstance(source.data, list):
        return even_placement(table(source.data, str(source.path)), frame, str(source.path))
    return read_tables(source, NAMES, frame)


def write(placement: Placement, frame: Frame, suffix: str) -> Written:
    """JSON or npz. Raises BadInput for uneven GPUs."""
    return as_file(write_tables(placement, NAMES, "vLLM"), suffix, (NOTE,))


VLLM = Format("vllm", "vLLM: the maps of its EplbState", (".json", ".npz"), recognise, read, write)
