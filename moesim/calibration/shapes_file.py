"""Shapes files: CSV with the columns hidden, inter, topk, num_experts, one expert shape a row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.calibration.records import Records
from moesim.errors import BadInput
from moesim.yamlfile import read_text

Shape = tuple[int, int, int, int]
HEADER: Final = ["hidden", "inter", "topk", "num_experts"]
EXAMPLE: Final = "7168,2048,8,256"


def read_shapes(path: Path) -> frozenset[Shape]:
    """Raises BadInput for another header, no row, or a field that is no positive whole number."""
    rows = list(csv.reader(read_text(path).splitlines()))
    if not rows or [cell.strip() for cell in rows[0]] != HEADER:
        raise BadInput("has another first line", where=path, way_out=f"{','.join(HEADER)} there")
    shapes = [_shape(row, f"{path}:{line}") for line, row in enumerate(rows[1:], 2) if row]
    if not shapes:
        raise BadInput("holds no shape", where=path, way_out=f"a row such as {EXAMPLE}")
    return frozenset(shapes)


def _shape(row: list[str], where: str) -> Shape:
    numbers = [int(cell) if cell.strip().isdecimal() else 0 for cell in row]
    if len(numbers) != len(HEADER) or min(numbers) < 1:
        raise BadInput(f"{','.join(row)!r} is no {','.join(HEADER)}", where=where, way_out=EXAMPLE)
    return numbers[0], numbers[1], numbers[2], numbers[3]


def of_shapes(records: Records, shapes: frozenset[Shape]) -> npt.NDArray[np.bool_]:
    """bool[rows]: grouped GEMMs of one of the shapes; bare ones (`matrices` 1) where they are one of its two."""
    if not shapes:
        return np.zeros(len(records), dtype=np.bool_)
    hidden, inter, bare = records["hidden"], records["inter"], records["matrices"] == 1
    found = np.zeros(len(records), dtype=np.bool_)
    for h, i, topk, experts in shapes:
        whole = (hidden == h) & (inter == i)
        part = (hidden == h) & ((inter == i) | (inter == 2 * i)) | (hidden == i) & (inter == h)
        found |= np.where(bare, part, whole) & (records["topk"] == topk) & (records["experts"] == experts)
    return found


def absent(records: Records, shapes: frozenset[Shape]) -> list[Shape]:
    """Shapes that no record is of, in order."""
    return sorted(shape for shape in shapes if not of_shapes(records, frozenset([shape])).any())
