"""Table: rows of recorded requests as every reader gives them, and the columns of CSV and JSONL files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moesim import foreign
from moesim.errors import BadInput
from moesim.serving.prefixes import Prefixes
from moesim.serving.requests import Ints

MAX_BYTES = 1 << 30
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """int64[n] each: arrival ps after the first request, or None in files of lengths; prompt, output tokens.

    skipped: rows that the reader left out, and why, in words; "" if none. prefixes: what prompts have in common.
    """

    arrival: Ints | None
    prompt: Ints
    output: Ints
    skipped: str = ""
    prefixes: Prefixes | None = None


@dataclass(frozen=True)
class Reader:
    """needs: columns by which a file is known; read(path, rows of the file) -> Table."""

    about: str
    needs: tuple[str, ...]
    read: Callable[[Path, Iterable[tuple[int, Row]]], Table]


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """(line, row) of a CSV with a header, or of a file with a JSON object a line. Raises BadInput."""
    with foreign.reading(path, "requests"):
        text = foreign.read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    lines = text.splitlines()
    if not lines:
        raise BadInput("is empty", where=path)
    return _json_rows(path, lines) if lines[0].lstrip().startswith("{") else _csv_rows(path, lines)


def _csv_rows(path: Path, lines: list[str]) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(lines)
    for row in reader:
        if None in row or None in row.values():
            raise BadInput("has more or fewer cells than the header", where=f"{path}:{reader.line_num}")
        yield reader.line_num, row


def _json_rows(path: Path, lines: list[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise BadInput("is no JSON object", where=f"{path}:{number}") from None
        if not isinstance(row, dict):
            raise BadInput("is no JSON object", where=f"{path}:{number}")
        yield number, row


def number(path: Path, line: int, row: Row, column: str) -> float:
    """A finite number of 0 or more in a cell. Raises BadInput with file, line and column."""
    value = row.get(column)
    try:
        found = float(value) if not isinstance(value, bool) and value is not None else float("nan")
    except (TypeError, ValueError):
        found = float("nan")
    if not 0 <= found < float("inf"):
        raise BadInput(f"{value!r} is no number of 0 or more", where=f"{path}:{line} {column}")
    return found


def tokens(path: Path, line: int, row: Row, column: str) -> int:
    """A whole number of 1 or more. Raises BadInput."""
    value = number(path, line, row, column)
    if value != int(value) or value < 1:
        what = f"{row.get(column)!r} is no whole number of 1 or more"
        raise BadInput(what, where=f"{path}:{line} {column}", way_out="leave the row out")
    return int(value)


def column(values: Iterable[int]) -> Ints:
    """int64[n]."""
    return np.fromiter(values, dtype=np.int64)


def since_first(path: Path, lines: Iterable[int], seconds: Iterable[float]) -> Ints:
    """Seconds by any clock -> ps after the first. Raises BadInput where a row is earlier than the one before it."""
    at = np.fromiter(seconds, dtype=np.float64)
    where = column(lines)
    if (early := np.flatnonzero(np.diff(at) < 0)).size:
        raise BadInput("is earlier than the row before", where=f"{path}:{where[early[0] + 1]}", way_out="sort by time")
    return np.rint((at - at[:1]) * 1e12).astype(np.int64)
