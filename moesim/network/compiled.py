"""numba's decorators with a type, so that compiled functions keep theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def njit(function: Function) -> Function:
    """Compile at first call, keep the result on disk, release the interpreter lock."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def inlined(function: Function) -> Function:
    """For small functions called once per flow: a call with many arrays costs 100 ns, counting their references."""
    return cast(Function, numba.njit(cache=True, nogil=True, inline="always")(function))
