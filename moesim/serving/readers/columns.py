"""Files whose columns are a time in some unit and two numbers of tokens: most of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from moesim.errors import BadInput
from moesim.serving.readers.table import Row, Table, column, number, since_first, tokens

Time = Callable[[Path, int, Row], float]


def seconds_in(name: str, unit: float = 1.0) -> Time:
    """The time of a row, in a column of numbers of `unit` seconds."""
    return lambda path, line, row: number(path, line, row, name) * unit


def read_columns(
    path: Path, rows: Iterable[tuple[int, Row]], time: Time | None, prompt: str, output: str, *,
    skips: str = "", keep: Callable[[Row], bool] = lambda row: True,
) -> Table:  # fmt: skip
    """Every row that is kept; skips: why the others are not, in words. Raises BadInput."""
    lines, at, asked, given, left = [], [], [], [], 0
    for line, row in rows:
        if not keep(row):
            left += 1
            continue
        lines.append(line)
        asked.append(tokens(path, line, row, prompt))
        given.append(tokens(path, line, row, output))
        at.append(time(path, line, row) if time else 0.0)
    if not lines:
        raise BadInput("holds no request", where=path)
    arrival = since_first(path, lines, at) if time else None
    return Table(arrival, column(asked), column(given), f"{left} rows {skips}" if left else "")
