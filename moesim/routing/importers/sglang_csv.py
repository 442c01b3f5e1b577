"""SGLang's first recorder: a CSV of `layer_id,expert_id,count`, one row a layer and expert that had tokens."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

import numpy as np

from moesim import atomic, foreign
from moesim.errors import BadInput
from moesim.routing.importers.format import LARGEST, Format, Options, counts_of
from moesim.routing.importers.physical import dense_counts, load_record
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace

HEADER: Final = ("layer_id", "expert_id", "count")
MAX_FILE: Final = 1 << 26
LIMITS: Final = (4096, 65535, LARGEST)


def read(path: Path, options: Options) -> LoadRecord:
    """One step. A layer and expert without a row counted nothing. Raises BadInput naming the line."""
    with foreign.reading(path, "CSV of layer_id,expert_id,count"):
        rows = list(csv.reader(foreign.read_bytes(path, MAX_FILE).decode("utf-8-sig").splitlines()))
    if not rows or tuple(cell.strip() for cell in rows[0]) != HEADER:
        raise BadInput(
            f"has columns {', '.join(rows[0])[:80] if rows else 'none'}", where=path, way_out=",".join(HEADER)
        )
    cells = np.array([_numbers(row, f"{path}:{line}") for line, row in enumerate(rows[1:], 2) if row], dtype=np.int64)
    if not len(cells):
        raise BadInput("holds no counts", where=path)
    layer, expert, count = cells.T
    experts = options.model.num_experts if options.model else int(expert.max()) + 1
    if expert.max() >= experts:
        raise BadInput(f"names expert {expert.max()}, the model has {experts}", where=path)
    if len(np.unique(cells[:, :2], axis=0)) != len(cells):
        raise BadInput("a layer and expert have two rows", where=path)
    counts = np.zeros((1, int(layer.max()) + 1, experts), dtype=np.int64)
    counts[0, layer, expert] = count
    return load_record("sglang-csv", path, options, counts)


def _numbers(row: list[str], where: str) -> tuple[int, ...]:
    """(layer, expert, count) of one row. Raises BadInput."""
    cells = [cell.strip() for cell in row]
    if len(cells) != 3 or not all(cell.isascii() and cell.isdigit() and len(cell) <= 10 for cell in cells):
        raise BadInput(f"{','.join(cells)[:60]!r} is no layer, expert and count", where=where)
    numbers = tuple(map(int, cells))
    for name, number, limit in zip(HEADER, numbers, LIMITS, strict=True):
        if number >= limit:
            raise BadInput(f"{name} is {number}", where=where, way_out=f"below {limit}")
    return numbers


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """All steps as one; also the zeros of layers that counted something."""
    total = dense_counts(counts_of(record, path)).sum(axis=0)
    lines = [f"{layer},{expert},{total[layer, expert]}" for layer in np.flatnonzero(total.any(axis=1))
             for expert in range(total.shape[1])]  # fmt: skip
    atomic.write(path, "\n".join([",".join(HEADER), *lines]) + "\n")


SGLANG_CSV = Format("sglang-csv", "CSV layer_id,expert_id,count of SGLang's first recorder", False, read, write)
