"""numba's decorators with a type, so that compiled functions keep theirs; and a cache on disk that cannot go stale.

numba notices that the file of a cached function changed by its time and size only, and never that a function which it
calls did. Files of a wheel all have the same time, so after an upgrade old machine code would go on running. Here the
folder of the cache is named after the content of all files with compiled functions.

To compile what a step needs takes half a minute. A process whose MOESIM_KERNELS says `cached` has the same functions
run by Python itself where no machine code is there yet: their results are the same to the bit, and a small step is
over long before a compiler would be.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from moesim.errors import unknown_name

Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parent
PREFIX = "moesim-compiled-"
KERNELS = "MOESIM_KERNELS"
LAST = "fluid_watch._run_until-*.nbi"  # what the fluid network calls from Python: compiled after all that it calls
COMPILED, CACHED, PYTHON = "compiled", "cached", "python"


@cache
def interpreted() -> bool:
    """Do kernels run as plain Python in this process? Settled when the first is defined. Raises BadInput."""
    wish = os.environ.get(KERNELS, COMPILED)
    if wish not in (COMPILED, CACHED, PYTHON):
        raise unknown_name(KERNELS, wish, (COMPILED, CACHED, PYTHON))
    return wish == PYTHON or (wish == CACHED and not _there())


def uncompiled() -> bool:
    """Will kernels be compiled in this process, none being there yet? That takes half a minute, once."""
    return not interpreted() and not _there()


def _there() -> bool:
    """Has a step been played here? Other verbs need few of the functions."""
    return any(cache_folder().rglob(LAST))


def njit(function: Function) -> Function:
    """Compile at first call, keep the result on disk, release the interpreter lock."""
    return _wrapping(function) if interpreted() else _compiled(function)


def _wrapping(function: Function) -> Function:
    """Integers wrap around without a word, as they do in machine code: hashes are made of that."""

    @wraps(function)
    def silent(*arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*arguments)

    return cast(Function, silent)


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
    if interpreted():
        return function
    import numba  # 0.3 s that a process without kernels need not spend

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))
    finally:
        numba.config.CACHE_DIR = before


@cache
def cache_folder() -> Path:
    """Below NUMBA_CACHE_DIR, or else the package's own __pycache__ (without those of older sources) or ~/.cache."""
    name = PREFIX + digest([path for path in sorted(PACKAGE.rglob("*.py")) if b"moesim.compiled" in path.read_bytes()])
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
