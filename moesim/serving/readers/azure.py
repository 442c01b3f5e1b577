"""Azure LLM inference traces of 2023 and 2024: TIMESTAMP, ContextTokens, GeneratedTokens.

Source: Azure/AzurePublicDataset; Patel et al., Splitwise, ISCA 2024. Rows that generated nothing are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from moesim.errors import BadInput
from moesim.serving.readers.columns import read_columns
from moesim.serving.readers.table import Reader, Row, Table


def _read(path: Path, rows: Iterable[tuple[int, Row]]) -> Table:
    return read_columns(
        path, rows, _seconds, "ContextTokens", "GeneratedTokens", skips="have no prompt or no answer", keep=_whole
    )


def _whole(row: Row) -> bool:
    return "0" not in (row.get("ContextTokens"), row.get("GeneratedTokens"))


def _seconds(path: Path, line: int, row: Row) -> float:
    """Of the day and the clock; ISO 8601 with up to 7 digits of a second, of which Python reads 6."""
    text = str(row.get("TIMESTAMP"))
    try:
        stamp, _, fraction = text.partition(".")
        digits, zone = fraction[:7].rstrip("Z"), fraction[fraction.find("+") :] if "+" in fraction else ""
        digits = digits.partition("+")[0]
        return datetime.fromisoformat(stamp.rstrip("Z") + (zone or "+00:00")).timestamp() + float(f"0.{digits or 0}")
    except ValueError:
        raise BadInput(f"{text!r} is no time", where=f"{path}:{line} TIMESTAMP") from None


READER = Reader("Azure LLM inference trace 2023, 2024 (CSV)", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _read)
