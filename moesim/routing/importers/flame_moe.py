"""FLAME-MoE: a folder `actives/iter_N/` of `layer_LL.parquet` with scores and indices lists, taken in training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moesim import atomic
from moesim.errors import BadInput
from moesim.routing.importers.format import Format, Options, header_for, layer_map, tokens_of, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import PHASES, RoutingTrace, make_trace

MAX_ROWS = 1 << 28


def read(path: Path, options: Options) -> RoutingTrace:
    """One iteration's folder (its number becomes the step). Raises BadInput."""
    files = {int(m[1]): f for f in sorted(path.glob("layer_*.parquet")) if (m := re.search(r"layer_(\d+)", f.name))}
    if not files:
        raise BadInput("holds no layer_LL.parquet", where=path, way_out="the folder of one iteration, iter_N")
    tables = [_read_layer(file) for file in files.values()]
    shapes = {ids.shape for ids, _ in tables}
    if len(shapes) != 1:
        raise BadInput(f"layers of different shapes {sorted(shapes)}", where=path)
    ids = np.stack([layer for layer, _ in tables], axis=1)
    weight = np.stack([scores for _, scores in tables], axis=1)
    order = np.argsort(-weight, axis=2, kind="stable")
    header = header_for("flame-moe", options, path, tuple(files), max(files) + 1, int(ids.max()) + 1, ids.shape[2])
    step = int(m[1]) if (m := re.search(r"iter_(\d+)", path.name)) else 0
    return make_trace(
        header,
        np.take_along_axis(ids, order, axis=2),
        weight=np.take_along_axis(weight, order, axis=2),
        step=step,
        phase=PHASES.index("train"),
        where=str(path),
    )


def _read_layer(file: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    try:
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        if opened.metadata.num_rows > MAX_ROWS:
            raise BadInput(f"claims {opened.metadata.num_rows} rows", where=file)
        table = opened.read(columns=["indices", "scores"])
        scores = _matrix(table, "scores").astype(np.float32)
        if not np.isfinite(scores).all():
            raise BadInput("a score is not a finite number", where=file)
        return whole(_matrix(table, "indices"), "experts", file), scores
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise BadInput(f"is damaged or no FLAME-MoE layer ({str(error)[:100]})", where=file) from None


def _matrix(table: pa.Table, name: str) -> npt.NDArray[Any]:
    column = table.column(name).combine_chunks()
    if not pa.types.is_list(column.type) or pa.types.is_nested(column.type.value_type) or column.null_count:
        raise ValueError(f"{name} is {column.type}, not a list of numbers a token")
    values: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(table.num_rows, -1)


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """One parquet a layer into the folder; a trace without weights gets equal scores."""
    trace = tokens_of(record, path)
    layers, _ = layer_map(trace.header)
    weight = (
        trace.weight if trace.weight is not None else np.full(trace.expert.shape, 1 / trace.header.top_k, np.float16)
    )
    with atomic.folder(path) as part:
        for number, layer in enumerate(layers):
            ids = pa.array(list(trace.expert[:, number].astype(np.int16)), pa.list_(pa.int16()))
            scores = pa.array(list(weight[:, number].astype(np.float16)), pa.list_(pa.float16()))
            pq.write_table(pa.table({"scores": scores, "indices": ids}), part / f"layer_{layer:02d}.parquet")


FLAME_MOE = Format("flame-moe", "folder of layer_LL.parquet with scores and indices", True, read, write)
