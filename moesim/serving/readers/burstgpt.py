"""BurstGPT: Timestamp (s), Request tokens, Response tokens. Rows with no response failed; they are left out.

Source: HPMLL/BurstGPT.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from moesim.serving.readers.columns import read_columns, seconds_in
from moesim.serving.readers.table import Reader, Row, Table


def _read(path: Path, rows: Iterable[tuple[int, Row]]) -> Table:
    time = seconds_in("Timestamp")
    return read_columns(path, rows, time, "Request tokens", "Response tokens", skips="failed", keep=_answered)


def _answered(row: Row) -> bool:
    return "0" not in (row.get("Request tokens"), row.get("Response tokens"))


READER = Reader("BurstGPT (CSV, s)", ("Timestamp", "Request tokens", "Response tokens"), _read)
