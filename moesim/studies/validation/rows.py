"""Rows of a table of measurements: read whole, numbers checked where they are asked for; and how two orders agree."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy

from moesim import foreign, yamlfile
from moesim.errors import BadInput
from moesim.studies.validation.validation import Point

Row = Mapping[str, str]
FEWEST = 3  # points that an order can be told of


def read_rows(path: Path, *accepted: Sequence[str], rest: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """A CSV with all columns of one of `accepted` -> (line, cells without blanks around them) of each row; columns of
    `rest` that are not there are empty. Raises BadInput.
    """
    text = yamlfile.read_text(path)
    with foreign.reading(path, "table"):
        reader = csv.DictReader(text.splitlines())
        names = reader.fieldnames or ()
        rows = [(reader.line_num, row) for row in reader]
    if not any(set(columns) <= set(names) for columns in accepted):
        missing = next(column for column in accepted[0] if column not in names)
        way_out = f"columns {'; or '.join(', '.join((*columns, *rest)) for columns in accepted)}"
        raise BadInput(f"no column {missing!r}", where=f"{path}:1", way_out=way_out)
    empty = dict.fromkeys(rest, "")
    return [(line, {**empty, **{name: (row[name] or "").strip() for name in names}}) for line, row in rows]


def nothing_understood(path: Path, refused: Sequence[str]) -> BadInput:
    """A table of which no row was understood; why the first one was not."""
    return BadInput(f"no row is understood; {refused[0]}" if refused else "holds no rows", where=path)


def number(row: Row, column: str, most: float = float("inf")) -> float:
    """Raises BadInput where it is not above 0 and below `most`."""
    try:
        value = float(row.get(column, ""))
    except ValueError:
        value = 0.0
    if not 0 < value < most:
        raise BadInput(f"{column} {row.get(column, '')!r} is no positive number")
    return value


def whole(row: Row, column: str, most: float = float("inf")) -> int:
    """Raises BadInput where it is no whole number above 0 and below `most`."""
    value = number(row, column, most)
    if value != int(value):
        raise BadInput(f"{column} {row[column]!r} is no whole number")
    return int(value)


def spearman(points: Sequence[Point]) -> float:
    """Rank correlation of what was measured and predicted; 0 where there are too few to tell."""
    if len(points) < FEWEST:
        return 0.0
    ranks = [scipy.stats.rankdata([getattr(point, side) for point in points]) for side in ("measured", "predicted")]
    return float(np.nan_to_num(np.corrcoef(ranks[0], ranks[1])[0, 1]))
