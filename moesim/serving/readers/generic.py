"""Files in moesim's own columns, CSV or JSONL: arrival_s (may be missing), input_length, output_length."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from moesim.serving.readers.columns import read_columns, seconds_in
from moesim.serving.readers.table import Reader, Row, Table


def _read(path: Path, rows: Iterable[tuple[int, Row]]) -> Table:
    every = iter(rows)
    first = list(next(((one,) for one in every), ()))
    timed = bool(first) and "arrival_s" in first[0][1]
    time = seconds_in("arrival_s") if timed else None
    return read_columns(path, chain(first, every), time, "input_length", "output_length")


READER = Reader("arrival_s, input_length, output_length (CSV or JSONL)", ("input_length", "output_length"), _read)
