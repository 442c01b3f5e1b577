"""Quality: what a user knows of a setting and moesim never predicts (accuracy, loss, a price), beside what it costs.

A CSV file with a header, a line a setting. Columns named by keys of the scenario say which setting a line is about;
the others are numbers, and become metrics `quality.<column>` of every point with that setting, for tables and fronts.
Nothing is interpolated: a point whose setting has no line is refused before anything is run.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moesim import foreign
from moesim.errors import BadInput
from moesim.studies.sweeping.axes import flow, read_value
from moesim.studies.sweeping.store import Kept

MAX_BYTES: Final = 1 << 24
PREFIX: Final = "quality."  # before a column's name: nobody takes it for something that is simulated
UNIT: Final = "as given"
EXAMPLE: Final = "a header like precision.experts,accuracy and a line a setting: fp8,0.812"
Line = tuple[int, tuple[float, ...]]  # its number in the file, and the numbers on it


@dataclass(frozen=True)
class Quality:
    """keys: columns that name keys; names: the others; lines: the values of `keys` as `matched` -> a line."""

    path: Path
    digest: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    lines: Mapping[tuple[Any, ...], Line]

    def of(self, setting: Mapping[str, Any]) -> dict[str, float]:
        """key -> value of a point -> metric -> number. Raises BadInput where no line is about it."""
        line = self.lines.get(tuple(matched(setting[key]) for key in self.keys))
        if line is None:
            asked = ", ".join(f"{key}={flow(setting[key])}" for key in self.keys)
            raise BadInput(f"has no line for {asked}, and quality is not predicted", where=self.path,
                           way_out="add what was measured there, or leave that value out")  # fmt: skip
        return dict(zip(self.names, line[1], strict=True))

    def beside(self, kept: Kept, setting: Mapping[str, Any]) -> Kept:
        """A point with the numbers of its setting among its metrics, where it has any."""
        metrics = kept.record["metrics"]
        if not metrics:
            return kept
        joined = {name: {"value": value, "unit": UNIT} for name, value in self.of(setting).items()}
        record = {**kept.record, "metrics": {**metrics, **joined}}
        return Kept(kept.code, kept.head + self.digest.encode(), json.dumps(record, allow_nan=False).encode())

    @property
    def said(self) -> str:
        """Whose numbers these are."""
        return (f"{', '.join(self.names)}: joined from {self.path} (sha256 {self.digest[:12]}) by "
                f"{', '.join(self.keys)}; measured by whoever made that table, not predicted")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """For provenance."""
        return {"table": str(self.path), "sha256": self.digest, "join": list(self.keys), "joined": list(self.names)}


def read_quality(path: Path, is_key: Callable[[str], bool]) -> Quality:
    """is_key: whether a point has a value of that dotted key. Raises BadInput with the line."""
    with foreign.reading(path, "table of quality", EXAMPLE):
        content = foreign.read_bytes(path, MAX_BYTES)
        rows = list(csv.reader(content.decode("utf-8-sig").splitlines(), strict=True))
    if len(rows) < 2:
        raise BadInput("has no lines", where=path, way_out=EXAMPLE)
    header = [cell.strip() for cell in rows[0]]
    if len(set(header)) < len(header) or "" in header:
        raise BadInput("names a column twice, or not at all", where=f"{path}:1", way_out=EXAMPLE)
    keys = [name for name in header if is_key(name)]
    names = [name for name in header if name not in keys]
    if not keys:
        raise BadInput(f"no column of {', '.join(header)} is a key that this sweep sets or varies", where=f"{path}:1",
                       way_out=f"{EXAMPLE}; --set KEY=VALUE makes a key of a default")  # fmt: skip
    if not names:
        raise BadInput("has keys only, and nothing to join", where=f"{path}:1", way_out=EXAMPLE)
    lines: dict[tuple[Any, ...], Line] = {}
    for number, row in _filled(path, rows[1:], len(header)):
        cells = dict(zip(header, row, strict=True))
        setting = tuple(matched(read_value(cells[key], f"{path}:{number}")) for key in keys)
        if setting in lines:
            raise BadInput(f"is about the same setting as line {lines[setting][0]}", where=f"{path}:{number}",
                           way_out="one line a setting")  # fmt: skip
        lines[setting] = number, tuple(_number(cells[name], name, f"{path}:{number}") for name in names)
    digest = hashlib.sha256(content).hexdigest()
    return Quality(path, digest, tuple(keys), tuple(PREFIX + name for name in names), lines)


def matched(value: Any) -> Any:
    """What two equal values of a key share: 16 and 16.0 are one, true and 1 are not."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return flow(value)


def _filled(path: Path, rows: Sequence[Sequence[str]], columns: int) -> Iterator[tuple[int, Sequence[str]]]:
    """(number in the file, cells) of lines that are not blank. Raises BadInput."""
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != columns:
            raise BadInput(f"has {len(row)} cells, the header {columns}", where=f"{path}:{number}",
                           way_out="a cell for each column")  # fmt: skip
        yield number, row


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{name}: {text.strip()!r} is no number, and {name} is no key that this sweep sets or varies",
                       where=where, way_out=f"a number, or --set {name}=VALUE where it is a key")  # fmt: skip
    return value
