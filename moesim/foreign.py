"""The one room for bytes of others: sizes are asked for before memory, and whatever a library raises is a refusal.

A file that somebody else wrote may be damaged, hostile or of another kind. Its reader runs in `reading`, which turns
any exception (zlib, lzma, zip, JSON, Arrow, numpy, XML ...) into one line that names the file; sizes are compared with
limits before anything is allocated. What a reader of ours refuses itself passes unchanged.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from moesim.errors import BadInput, MoesimError

MAX_FILE: Final = 4 << 30  # bytes of a file that is read at once
MAX_EXPANDED: Final = 8 << 30  # bytes of all its arrays as 64-bit numbers
FREE_EXPANDED: Final = 1 << 26  # bytes that any file may grow to
MAX_RATIO: Final = 64  # beyond that: recorded ids and counts as 64-bit numbers shrink less than 40-fold
MAX_WORDS: Final = 120  # characters of a library's own message


@contextmanager
def reading(path: Path | str, what: str, way_out: str = "") -> Iterator[None]:
    """What is raised inside becomes BadInput: `path` is damaged or no `what`."""
    try:
        yield
    except MoesimError:
        raise
    except MemoryError:
        raise BadInput("asks for more memory than there is", where=path, way_out=way_out) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror or said(error)}", where=path, way_out=way_out) from None
    except Exception as error:
        raise BadInput(f"is damaged or no {what} ({said(error)})", where=path, way_out=way_out) from None


def said(error: BaseException) -> str:
    """A library's own words in one short line; its kind where it says nothing."""
    words = " ".join(str(error).split())[:MAX_WORDS]
    return words if words and not isinstance(error, KeyError) else f"{type(error).__name__} {words}".strip()


def regular(path: Path, limit: int = MAX_FILE) -> int:
    """Bytes of a regular file. Raises BadInput for anything else (a device has no end), or above `limit`."""
    with reading(path, "path"):
        found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise BadInput("is a folder, not a file", where=path)
    if not stat.S_ISREG(found.st_mode):
        raise BadInput("is a device or a pipe, not a file", where=path)
    if found.st_size > limit:
        raise BadInput(f"is larger than {limit} bytes", where=path)
    return found.st_size


def read_bytes(path: Path, limit: int = MAX_FILE) -> bytes:
    """A regular file of at most `limit` bytes. Raises BadInput."""
    regular(path, limit)
    with reading(path, "file"):
        return path.read_bytes()


def check_growth(packed: int, expanded: int, where: Path | str) -> None:
    """`packed` bytes that become `expanded` bytes of 64-bit numbers. Raises BadInput for a bomb."""
    if expanded > MAX_EXPANDED or expanded > max(FREE_EXPANDED, MAX_RATIO * packed):
        raise BadInput(
            f"claims {expanded} bytes of numbers out of {packed}", where=where, way_out="this looks like a zip bomb"
        )


def check_cells(shape: Sequence[int], most: int, where: Path | str) -> None:
    """Raises BadInput where an array of that shape has no cell, or more than `most`."""
    if min(shape, default=0) < 1 or math.prod(shape) > most:
        raise BadInput(f"claims an array of {tuple(shape)}", where=where, way_out=f"1 to {most} numbers")
