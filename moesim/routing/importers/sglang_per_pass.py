"""SGLang's recorder in mode `per_pass`: one row a record and rank; ranks of a forward pass add up.

The npz that `moesim trace unpack` makes of the .pt: `forward_pass_id` [n], `rank` [n], `global_physical_count` [n,
layers, slots], `last_physical_to_logical_map` [layers, slots].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.errors import BadInput
from moesim.routing.arrays import read_npz, write_npz
from moesim.routing.importers.format import Format, Options, counts_of, whole
from moesim.routing.importers.physical import dense_counts, load_record, logical_counts, trivial_map
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace

NAMES = ("forward_pass_id", "rank", "global_physical_count", "last_physical_to_logical_map")


def read(path: Path, options: Options) -> LoadRecord:
    """Steps are the forward passes in ascending order. Raises BadInput."""
    arrays = read_npz(path, NAMES)
    logical = logical_counts(arrays["global_physical_count"], arrays["last_physical_to_logical_map"], path)
    numbers = whole(arrays["forward_pass_id"], "forward_pass_id", path)
    if numbers.shape != logical.shape[:1]:
        raise BadInput(f"{len(logical)} passes of counts, forward_pass_id is {numbers.shape}", where=path)
    passes, which = np.unique(numbers, return_inverse=True)
    counts = np.zeros((len(passes), *logical.shape[1:]), dtype=np.int64)
    np.add.at(counts, which, logical)
    return load_record("sglang-per-pass", path, options, counts)


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """As one rank with the trivial placement would have recorded it."""
    loads = counts_of(record, path)
    steps = np.arange(len(loads.counts))
    write_npz(
        path,
        forward_pass_id=steps,
        rank=np.zeros_like(steps),
        global_physical_count=dense_counts(loads),
        last_physical_to_logical_map=trivial_map(loads),
    )


SGLANG_PER_PASS = Format("sglang-per-pass", "expert distribution recorder, mode per_pass", False, read, write)
