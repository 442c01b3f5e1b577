"""The table of a sweep: a row a point, as CSV and Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from moesim import atomic
from moesim.studies.sweeping.axes import flow
from moesim.studies.sweeping.plan import Point
from moesim.studies.sweeping.store import Kept, packed, unpacked

CSV, PARQUET, SUMMARY = "results.csv", "results.parquet", "summary.json"
OWN: Final = ("seed", "code", "reason")
PART: Final = "breakdown."


def rows(keys: Sequence[str], points: Sequence[Point], kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """Equal keys in each: the axes, seed, code and reason, metrics, parts of the breakdown; None where it has none."""
    metrics = dict.fromkeys(name for one in kept for name in one.record["metrics"])
    parts = dict.fromkeys(name for one in kept for name in one.record["breakdown"])
    return [
        dict(zip(keys, point.values, strict=True))
        | {"seed": point.seed, "code": one.code, "reason": one.record["reason"]}
        | {name: one.record["metrics"][name]["value"] if name in one.record["metrics"] else None for name in metrics}
        | {f"{PART}{name}": one.record["breakdown"].get(name) for name in parts}
        for point, one in zip(points, kept, strict=True)
    ]


def write(folder: Path, keys: Sequence[str], points: Sequence[Point], kept: Sequence[Kept]) -> tuple[str, ...]:
    """Both files, whole or not there, and the warnings of all points, each once. What was made of the very same points
    stays. Raises TryAgain.
    """
    made_of = hashlib.sha256(b"".join([repr(tuple(keys)).encode(), *(one.head for one in kept)])).hexdigest()
    summary = unpacked(folder / SUMMARY)
    if summary is not None and [summary["made_of"], summary["files"]] == [made_of, _digests(folder)]:
        return tuple(summary["warnings"])
    made = rows(keys, points, kept)
    with atomic.file(folder / PARQUET) as part:
        _write_parquet(part, keys, made)
    atomic.write(folder / CSV, as_csv(keys, made))
    warned = list(dict.fromkeys(text for one in kept for text in one.record["warnings"]))
    atomic.write(folder / SUMMARY, packed({"made_of": made_of, "files": _digests(folder), "warnings": warned}))
    return tuple(warned)


def _digests(folder: Path) -> list[str]:
    """Of the two files; "" of one that is not there."""
    paths = (folder / CSV, folder / PARQUET)
    return [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in paths]


def as_csv(keys: Sequence[str], made: Sequence[Mapping[str, Any]]) -> str:
    """Text with a header; values of axes as `--set` takes them."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if made:
        writer.writerow(made[0])
        axes = set(keys)
        writer.writerows(
            ["" if v is None else flow(v) if k in axes else v for k, v in row.items()] for row in made
        )  # fmt: skip
    return stream.getvalue()


def _write_parquet(path: Path, keys: Sequence[str], made: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [row[name] for row in made] for name in (made[0] if made else ())}
    arrays = {name: _column(values, plain=name not in keys and name not in OWN) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path)


def _column(values: Sequence[Any], *, plain: bool) -> Any:
    """Numbers as float64, values of one kind as what they are, any others as text."""
    import pyarrow as pa

    if plain:
        return pa.array(values, pa.float64())
    if len({type(value) for value in values}) == 1 and isinstance(values[0], (bool, int, float, str)):
        return pa.array(values)
    return pa.array([flow(value) for value in values], pa.string())
