"""Mooncake traces: a JSON object a line with timestamp (ms), input_length, output_length and hash_ids.

Source: kvcache-ai/Mooncake, FAST '25 release. hash_ids (prefixes of 512 tokens) are read over: nothing is cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from moesim.serving.readers.columns import read_columns, seconds_in
from moesim.serving.readers.table import Reader, Row, Table


def _read(path: Path, rows: Iterable[tuple[int, Row]]) -> Table:
    return read_columns(path, rows, seconds_in("timestamp", 1e-3), "input_length", "output_length")


READER = Reader("Mooncake trace (JSONL, ms)", ("timestamp", "input_length", "output_length", "hash_ids"), _read)
