"""Mooncake traces: a JSON object a line with timestamp (ms), input_length, output_length and hash_ids.

Source: kvcache-ai/Mooncake, FAST '25 release: each of hash_ids stands for 512 tokens, and for all before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from moesim.errors import BadInput
from moesim.serving.prefixes import Hashed
from moesim.serving.readers.columns import read_columns, seconds_in
from moesim.serving.readers.table import Reader, Row, Table, column

UNIT = 512  # tokens that a hash stands for
MOST = 1 << 40  # hashes are numbers below it


def _read(path: Path, rows: Iterable[tuple[int, Row]]) -> Table:
    every: list[list[int]] = []

    def noted() -> Iterator[tuple[int, Row]]:
        for line, row in rows:
            every.append(_hashes(path, line, row))
            yield line, row

    found = read_columns(path, noted(), seconds_in("timestamp", 1e-3), "input_length", "output_length")
    begin = np.cumsum([0, *map(len, every)])
    return replace(found, prefixes=Hashed(begin, column(one for own in every for one in own), found.prompt, UNIT))


def _hashes(path: Path, line: int, row: Row) -> list[int]:
    given = row.get("hash_ids")
    if not isinstance(given, list) or not all(type(one) is int and 0 <= one < MOST for one in given):
        raise BadInput("are no whole numbers of 0 or more", where=f"{path}:{line} hash_ids")
    return given


READER = Reader("Mooncake trace (JSONL, ms)", ("timestamp", "input_length", "output_length", "hash_ids"), _read)
