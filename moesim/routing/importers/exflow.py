"""ExFlow's `trace.npy`: [tokens, layers] top-1 expert ids (arXiv 2401.08383)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim import atomic
from moesim.errors import BadInput
from moesim.routing.arrays import read_npy_file
from moesim.routing.importers.format import Format, Options, header_for, tokens_of, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace, make_trace


def read(path: Path, options: Options) -> RoutingTrace:
    """Tokens are one request in the file's order. Raises BadInput."""
    ids = read_npy_file(path)
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
        raise BadInput(f"holds {ids.dtype} {ids.shape}, not integers [tokens, layers]", where=path)
    ids = whole(ids, "experts", path)
    layers = tuple(range(ids.shape[1]))
    header = header_for("exflow", options, path, layers, len(layers), int(ids.max()) + 1, 1)
    return make_trace(header, ids[:, :, None], where=str(path))


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """The heaviest expert of each token and layer as int64."""
    trace = tokens_of(record, path)
    with atomic.file(path) as part, part.open("wb") as stream:
        np.save(stream, trace.expert[:, :, 0].astype(np.int64), allow_pickle=False)


EXFLOW = Format("exflow", "trace.npy [tokens, layers], top-1 ids", True, read, write)
