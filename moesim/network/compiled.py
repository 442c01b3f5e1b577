"""numba's decorators with a type, so that compiled functions keep theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def njit(function: Function) -> Function:
    """Compile at first call, keep the result on disk, release the interpreter lock."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def inner(function: Function) -> Function:
    """For functions that only compiled code calls: without the wrapper that Python would need, they compile faster."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))


def inlined(function: Function) -> Function:
    """For small functions that run once per flow: they become part of their caller (a third faster at 128 GPUs)."""
    return cast(Function, numba.njit(cache=True, nogil=True, inline="always")(function))
