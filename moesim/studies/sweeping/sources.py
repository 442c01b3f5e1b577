"""What the numbers of a run were worked out by: the files of this package, but for those that show them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import moesim

PACKAGE: Final = Path(moesim.__file__).parent
SHOWING: Final = frozenset({"cli", "report", "_shipped"})  # shipped data are in a point's key where it names them
SUFFIXES: Final = (".py", ".yaml")


@cache
def sources_digest(package: Path = PACKAGE) -> str:
    """sha256 over names and contents, once a process: 700 files take 12 ms of CPU."""
    found = hashlib.sha256()
    for name in _names(str(package), SHOWING):
        content = Path(name).read_bytes()
        found.update(f"{os.path.relpath(name, package)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _names(folder: str, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """Sorted; os.scandir, since Path.rglob takes twice as long."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _names(entry.path) if entry.name not in without else ()
            elif entry.name.endswith(SUFFIXES):
                yield entry.path
