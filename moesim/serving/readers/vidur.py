"""Vidur's CSV: arrived_at (s), num_prefill_tokens, num_decode_tokens; without arrived_at it holds lengths only.

Source: microsoft/vidur, data/processed_traces.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from moesim.serving.readers.columns import read_columns, seconds_in
from moesim.serving.readers.table import Reader, Row, Table


def _read(path: Path, rows: Iterable[tuple[int, Row]]) -> Table:
    every = iter(rows)
    first = list(next(((one,) for one in every), ()))
    timed = bool(first) and "arrived_at" in first[0][1]
    time = seconds_in("arrived_at") if timed else None
    return read_columns(path, chain(first, every), time, "num_prefill_tokens", "num_decode_tokens")


READER = Reader("Vidur trace (CSV, s), or lengths alone", ("num_prefill_tokens", "num_decode_tokens"), _read)
