"""SGLang's recorder in mode `stat`: `logical_count` [steps, all layers, experts] (the .pt unpacked to npz first)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.errors import BadInput
from moesim.routing.arrays import read_npz, write_npz
from moesim.routing.importers.format import Format, Options, counts_of, whole
from moesim.routing.importers.physical import dense_counts, load_record
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace


def read(path: Path, options: Options) -> LoadRecord:
    """Raises BadInput."""
    counts = read_npz(path, ("logical_count",))["logical_count"]
    if counts.ndim != 3 or counts.dtype.kind not in "iu":
        raise BadInput(
            f"logical_count is {counts.dtype} {counts.shape}", where=path, way_out="[steps, layers, experts]"
        )
    return load_record("sglang-stat", path, options, whole(counts, "counts", path))


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """Also what `--init-expert-location` accepts once saved with torch."""
    write_npz(path, logical_count=dense_counts(counts_of(record, path)).astype(np.int32))


SGLANG_STAT = Format("sglang-stat", "expert distribution recorder, mode stat (npz of the .pt)", False, read, write)
