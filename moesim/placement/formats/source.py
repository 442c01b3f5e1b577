"""The content of a placement file as plain data: JSON, YAML or arrays, none of which is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.routing.arrays import AGAIN, read_npy_file, read_npz

MAX_JSON: Final = 64 << 20
NO_NUMBER: Final = 65535  # expert and slot numbers lie below
ARRAYS: Final = (
    "phy2log", "log2phy", "logcnt", "physical_to_logical_map", "logical_to_physical_map", "logical_replica_count",
    "placement",
)  # fmt: skip
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """A file's path, its suffix, and what it holds: parsed JSON, a YAML mapping, named arrays, or one bare array."""

    path: Path
    suffix: str
    data: Any

    @property
    def names(self) -> set[str]:
        """The names that stand at the top of it."""
        return set(self.data) if isinstance(self.data, Mapping) else set()


def open_source(path: Path) -> Source:
    """Read a file by its suffix. Raises BadInput for what is damaged, too large, or not data."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        way_out = "moesim trace unpack, or the engine's JSON" if suffix == ".pt" else ", ".join(READERS)
        raise BadInput(f"a placement is no {suffix or 'file without a suffix'}", where=path, way_out=way_out)
    return Source(path, suffix, READERS[suffix](path))


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_JSON:
            raise BadInput(f"is larger than {MAX_JSON} bytes", where=path, way_out="an .npz of the same tables")
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=path, way_out="a file that is there") from None
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise BadInput(f"is not JSON: {error.msg}", where=where, way_out=AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not JSON: {error}", where=path, way_out=AGAIN) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _yaml(path: Path) -> Any:
    return yamlfile.read_yaml(path).data


def _npz(path: Path) -> Any:
    return read_npz(path, (), ARRAYS)


READERS: Final = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".npz": _npz, ".npy": read_npy_file}


def take(source: Source, key: str) -> Any:
    """The value of a key. Raises BadInput with the keys that are there."""
    if key not in source.names:
        there = f"holds {', '.join(sorted(map(str, source.names)))}" if source.names else "holds no keys"
        raise BadInput(f"lacks {key}", where=source.path, way_out=there)
    return source.data[key]


def table(value: Any, where: str) -> Ints:
    """Rows of equally many numbers, as lists or an array -> int64[rows, columns]. Raises BadInput naming the row."""
    if isinstance(value, np.ndarray):
        if value.ndim != 2 or value.dtype.kind not in "iu" or not value.size:
            raise BadInput(
                f"is {value.dtype}{list(value.shape)}, not integers [layers, slots]", where=where,
                way_out="a row of expert numbers for each layer",
            )  # fmt: skip
        return value.astype(np.int64)
    if not isinstance(value, list) or not value:
        raise BadInput("is no list of rows", where=where, way_out="a row of expert numbers for each layer")
    rows = [row_of(one, f"{where}[{number}]") for number, one in enumerate(value)]
    for number, one in enumerate(rows):
        if len(one) != len(rows[0]):
            raise BadInput(
                f"has {len(one)} slots, row 0 has {len(rows[0])}", where=f"{where}[{number}]",
                way_out="equally many in every row; an empty slot is -1",
            )  # fmt: skip
    return np.stack(rows)


def row_of(value: Any, where: str) -> Ints:
    """A list of expert or slot numbers -> int64[n]. Raises BadInput naming the first that is none."""
    if not isinstance(value, list) or not value:
        raise BadInput("is no list of numbers", where=where, way_out="[0, 1, 2, ...]: the expert in each slot")
    wrong = next((n for n, one in enumerate(value) if type(one) is not int or not -1 <= one < NO_NUMBER), None)
    if wrong is not None:
        raise BadInput(
            f"{value[wrong]!r} at {wrong} is no expert's number", where=where,
            way_out="whole numbers from 0, or -1 for an empty slot",
        )  # fmt: skip
    return np.array(value, dtype=np.int64)


def rows_text(rows: Any) -> str:
    """[rows, ...] integers -> JSON with one row a line."""
    lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in np.asarray(rows).tolist())
    return f"[\n  {lines}\n ]"


def mapping_text(values: Mapping[str, Any]) -> bytes:
    """{key: rows} -> JSON, one row a line."""
    body = ",\n ".join(f"{json.dumps(key)}: {rows_text(rows)}" for key, rows in values.items())
    return f"{{\n {body}\n}}\n".encode()
