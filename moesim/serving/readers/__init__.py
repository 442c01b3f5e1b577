"""Readers of recorded requests. A new format is one file here and one line in REGISTRY; the first that fits reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

from moesim import shipped
from moesim.errors import BadInput, pick, unknown_name
from moesim.serving.readers import azure, burstgpt, generic, mooncake, vidur
from moesim.serving.readers.table import Reader, Table, rows_of

FOLDER: Final = "workloads/requests"
SUFFIXES: Final = (".csv", ".jsonl")
REGISTRY: Final[Mapping[str, Reader]] = {
    "azure": azure.READER,
    "mooncake": mooncake.READER,
    "burstgpt": burstgpt.READER,
    "vidur": vidur.READER,
    "generic": generic.READER,
}


def read_requests(name_or_path: str, format_: str | None = None) -> Table:
    """A shipped name or a file, by the reader that is named, or that knows its columns. Raises BadInput."""
    return _read(find_requests(name_or_path), format_)


@lru_cache(maxsize=4)
def _read(path: Path, format_: str | None) -> Table:
    rows = rows_of(path)
    first = next(rows, None)
    if first is None:
        raise BadInput("holds no request", where=path)
    reader = pick("format", format_, REGISTRY) if format_ else _knows(path, frozenset(map(str, first[1])))
    if missing := [name for name in reader.needs if name not in first[1]]:
        raise BadInput(f"has no {missing[0]!r}", where=path, way_out=f"columns {', '.join(reader.needs)}")
    return reader.read(path, chain((first,), rows))


def _knows(path: Path, columns: frozenset[str]) -> Reader:
    for reader in REGISTRY.values():
        if columns.issuperset(reader.needs):
            return reader
    known = "; ".join(f"{name}: {', '.join(reader.needs)}" for name, reader in REGISTRY.items())
    raise BadInput(f"no reader knows the columns {', '.join(sorted(columns))}", where=path, way_out=known)


def find_requests(name_or_path: str) -> Path:
    """The file of a shipped name, or the path itself. Raises BadInput with the shipped names."""
    path = Path(name_or_path)
    known = known_requests()
    if name_or_path in known:
        return known[name_or_path]
    if path.suffix in SUFFIXES or path.exists():
        return path
    raise unknown_name("requests", name_or_path, known)


def known_requests() -> dict[str, Path]:
    """name -> file of the shipped requests."""
    return dict(sorted({n: p for suffix in SUFFIXES for n, p in shipped.names(FOLDER, suffix).items()}.items()))


__all__ = ["REGISTRY", "Reader", "Table", "find_requests", "known_requests", "read_requests"]
