"""What `moesim doctor` looks at."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import moesim
from moesim import shipped

LIBRARIES: Final = (
    "click", "networkx", "numba", "numpy", "pyarrow", "pydantic", "pyyaml", "rich", "scipy", "simpy",
)  # fmt: skip
EXTRAS: Final = {  # library -> the extra that has it, and what it is for
    "torch": ("torch", "recording routing and measuring kernels"),
    "transformers": ("torch", "recording Hugging Face models"),
    "ray": ("ray", "sweeps on many machines"),
    "submitit": ("slurm", "sweeps as jobs of Slurm"),
    "optuna": ("search", "searching spaces that are too large to play whole"),
}
SHIPPED: Final = {
    "topologies": ".yaml", "workloads/scenarios": ".yaml", "workloads/models": ".json", "workloads/routing": ".parquet",
    "calibration/profiles": ".yaml",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is fine, and what was found."""

    what: str
    state: Literal["ok", "missing", "wrong"]
    found: str


def examine() -> list[Finding]:
    """Everything, in the order in which it is printed. "missing" is optional, "wrong" is not."""
    return [*_system(), *_libraries(), *_extras(), *_files(), _cache(), _runs()]


def _system() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("moesim", "ok", f"{moesim.__version__} in {Path(moesim.__file__).parent}")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    yield Finding("cores", "ok", str(cores))


def _libraries() -> Iterator[Finding]:
    for name in LIBRARIES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "wrong", f"not installed: pip install {name}")


def _extras() -> Iterator[Finding]:
    for name, (extra, purpose) in EXTRAS.items():
        if importlib.util.find_spec(name):
            yield Finding(name, "ok", f"{importlib.metadata.version(name)}, for {purpose}")
        else:
            yield Finding(name, "missing", f"only for {purpose}: pip install 'moesim[{extra}]'")


def _files() -> Iterator[Finding]:
    for folder, suffix in SHIPPED.items():
        count = len(shipped.names(folder, suffix))
        yield Finding(folder, "ok" if count else "wrong", f"{count} files in {shipped.shipped(folder)}")


def _cache() -> Finding:
    from moesim.compiled import KERNELS, cache_folder, interpreted, uncompiled

    if interpreted():
        return Finding("compiled code", "ok", f"none: {KERNELS} has kernels run by Python, for small steps")
    folder = cache_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(there, os.W_OK):
        first = ", where the first step will compile it (half a minute, once)" if uncompiled() else ""
        return Finding("compiled code", "ok", f"kept in {folder}{first}")
    return Finding("compiled code", "missing", f"{there} is not writable, each run compiles: set NUMBA_CACHE_DIR")


def _runs() -> Finding:
    if os.access(Path.cwd(), os.W_OK):
        return Finding("runs", "ok", f"stored under {Path.cwd() / 'runs'}")
    return Finding("runs", "missing", f"{Path.cwd()} is not writable: use --out")
