"""The same problems in SimGrid 3.32 (Debian's libsimgrid-dev), with the settings that make it play plain max-min.

Only its run phase is timed, in CPU seconds of its own process; the platform is built before the clock starts. Bytes are
multiplied by 1e6 and times divided again, since SimGrid takes what is closer than 1e-5 s for one instant.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.problems import Problem

DRIVER = Path(__file__).with_name("simgrid_driver.cpp")
SCALE = 1_000_000
MODES = ("Lazy", "Full")


class Played(NamedTuple):
    """CPU seconds of the faster mode, which that was, finish float64[F] s."""

    seconds: float
    mode: str
    finish: npt.NDArray[np.float64]


@cache
def driver() -> Path | None:
    """The compiled driver; None where there is no compiler or no SimGrid."""
    if shutil.which("g++") is None or not Path("/usr/include/simgrid/s4u.hpp").exists():
        return None
    binary = Path(mkdtemp()) / "driver"
    subprocess.run(["g++", "-O2", "-std=c++17", "-o", binary, DRIVER, "-lsimgrid"], check=True)
    return binary


def play(problem: Problem, modes: tuple[str, ...] = MODES) -> Played | None:
    """The better of SimGrid's modes; None where SimGrid is not installed."""
    if (binary := driver()) is None:
        return None
    with TemporaryDirectory() as folder:
        case = Path(folder) / "case"
        case.write_bytes(_packed(problem))
        return min(_run(binary, case, mode) for mode in modes)


def _run(binary: Path, case: Path, mode: str) -> Played:
    done = subprocess.run([binary, case, mode], capture_output=True, text=True, check=True)
    seconds, *finish = done.stdout.split()
    return Played(float(seconds), mode, np.array(finish, dtype=np.float64) / SCALE)


def _packed(problem: Problem) -> bytes:
    """What the driver reads."""
    gpus = int(max(problem.source.max(), problem.destination.max())) + 1
    parts = [np.array([gpus, len(problem.capacity), len(problem.size)]).tobytes(), problem.capacity.tobytes()]
    hops = np.diff(problem.ptr)
    for flow in range(len(hops)):
        ends = (problem.source[flow], problem.destination[flow])
        links = problem.idx[problem.ptr[flow] : problem.ptr[flow + 1]].astype(np.int64)
        parts.append(np.array(ends, dtype=np.int64).tobytes())
        parts.append(np.float64(problem.size[flow] * SCALE).tobytes())
        parts.append(np.concatenate(([hops[flow]], links)).tobytes())
    return b"".join(parts)
