"""numba's decorators with a type, so that compiled functions keep theirs; and a cache on disk that cannot go stale.

numba notices that the file of a cached function changed by its time and size only, and never that a function which it
calls did. Files of a wheel all have the same time, so after an upgrade old machine code would go on running. Here the
folder of the cache is named after the content of all files with compiled functions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parents[1]
PREFIX = "moesim-compiled-"


def njit(function: Function) -> Function:
    """Compile at first call, keep the result on disk, release the interpreter lock."""
    return _compiled(function)


def inner(function: Function) -> Function:
    """For functions that only compiled code calls, and that make no arrays.

    Without the wrapper that Python would need they compile faster; without counting references to the arrays that they
    are handed, an atomic operation each, the fluid solver runs 4 times as fast.
    """
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def inlined(function: Function) -> Function:
    """For small functions that run once per flow: they become part of their caller (a third faster at 128 GPUs)."""
    return _compiled(function, inline="always")


def _compiled(function: Function, **options: Any) -> Function:
    """numba reads the folder of the cache while it decorates; everybody else's setting stays as it is."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))
    finally:
        numba.config.CACHE_DIR = before


@cache
def cache_folder() -> Path:
    """Below NUMBA_CACHE_DIR, or else the package's own __pycache__ (without those of older sources) or ~/.cache."""
    name = PREFIX + digest([path for path in sorted(PACKAGE.rglob("*.py")) if b"network.compiled" in path.read_bytes()])
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"]) / name
    own = PACKAGE / "__pycache__"
    if not os.access(own if own.is_dir() else PACKAGE, os.W_OK):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
    for old in own.glob(f"{PREFIX}*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)
    return own / name


def digest(files: Sequence[Path]) -> str:
    """16 hexadecimal digits of the names and contents."""
    content = hashlib.sha256()
    for path in (*files, Path(__file__)):
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]
