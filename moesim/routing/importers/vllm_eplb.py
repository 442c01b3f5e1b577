"""vLLM's EPLB state as an npz: `expert_load_window` [window, MoE layers, slots] and `physical_to_logical_map`."""

from __future__ import annotations

from pathlib import Path

from moesim.routing.arrays import read_npz, write_npz
from moesim.routing.importers.format import Format, Options, counts_of
from moesim.routing.importers.physical import dense_counts, load_record, logical_counts, trivial_map
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace


def read(path: Path, options: Options) -> LoadRecord:
    """One step a pass of the window. Raises BadInput."""
    arrays = read_npz(path, ("expert_load_window", "physical_to_logical_map"))
    counts = logical_counts(arrays["expert_load_window"], arrays["physical_to_logical_map"], path)
    return load_record("vllm-eplb", path, options, counts)


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """With the trivial placement."""
    loads = counts_of(record, path)
    write_npz(path, expert_load_window=dense_counts(loads), physical_to_logical_map=trivial_map(loads))


VLLM_EPLB = Format("vllm-eplb", "npz of expert_load_window and physical_to_logical_map", False, read, write)
