"""Flipped bits in what moesim stored, and writers that are killed: never another answer, never a torn file."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from moesim.costs import known_profiles, load_costs
from moesim.errors import MoesimError
from moesim.hardware import load_cluster
from moesim.report import stored
from moesim.routing import read_trace, write_trace
from moesim.routing.importers import REGISTRY
from moesim.routing.loads import loads_of, read_loads, write_loads
from trials.hostile.files import small_trace

FLIPS: Final = 200
KILLS: Final = 20  # of each kind of writer
RUN: Final = (("result", {"metrics": {}, "n": 1}), ("other", {"metrics": {}, "n": 2}))


def flips(seed: int) -> dict[str, tuple[int, int]]:
    """kind -> (flips that passed unseen and changed what was read, flips)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = {"metrics": {"a": {"value": 1.5, "unit": "s"}}, "rows": list(range(400))}
        run = stored.StoredRun(folder / "run", document, {"name": "x", "rows": list(range(400))})
        stored.save(run, "name: x\n" * 20)
        write_trace(small_trace(), folder / "t.parquet")
        write_loads(loads_of(small_trace()), folder / "l.npz")
        profile = next(iter(known_profiles().values()))
        for file in (profile, *profile.parent.glob(f"{profile.stem}*.parquet")):
            (folder / file.name).write_bytes(file.read_bytes())
        device = load_cluster("dgx-a100").devices[0]
        kinds: dict[str, tuple[Path, Callable[[], object]]] = {
            one: (folder / "run" / one, lambda: stored.open_run(str(folder / "run")))
            for one in (stored.RESULT, stored.PICTURES, stored.SCENARIO, stored.DIGESTS)
        }
        kinds["trace"] = folder / "t.parquet", lambda: _bytes(read_trace(folder / "t.parquet").expert)
        kinds["counts"] = folder / "l.npz", lambda: _bytes(read_loads(folder / "l.npz").counts)
        grids = next(iter(folder.glob(f"{profile.stem}*.parquet")), None)
        if grids is not None:
            kinds["grids"] = grids, lambda: _price(folder / profile.name, device)
        return {kind: _flipped(path, read, seed) for kind, (path, read) in kinds.items()}


def _bytes(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    return values.tobytes()


def _price(path: Path, device: object) -> float:
    costs = load_costs(str(path), device)  # type: ignore[arg-type]
    return float(np.sum(costs.gemm(np.array([128]), 4096, 4096, "bf16").seconds))


def _flipped(path: Path, read: Callable[[], object], seed: int) -> tuple[int, int]:
    whole, rng, silent = path.read_bytes(), np.random.default_rng(seed), 0
    truth = read()
    for _ in range(FLIPS):
        bit = int(rng.integers(8 * len(whole)))
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with contextlib.suppress(MoesimError):
            silent += read() != truth
    path.write_bytes(whole)
    return silent, FLIPS


def kills(seed: int) -> dict[str, tuple[int, int]]:
    """kind -> (torn or left over after the next write, kills)."""
    trace, rng = small_trace(), np.random.default_rng(seed)

    def save(folder: Path, number: int) -> None:
        for turn in range(4):
            word, document = RUN[(number + turn) % 2]
            stored.save(stored.StoredRun(folder / "run", document, {"name": word}), f"name: {word}\n")

    def export(name: str) -> Callable[[Path, int], None]:
        def write(folder: Path, number: int) -> None:
            for _ in range(2):
                REGISTRY[name].write(trace if REGISTRY[name].tokens else loads_of(trace), folder / "x")

        return write

    exports = ("trtllm", "flame-moe", "exflow", "sglang-stat", "vllm-returned")
    writers: dict[str, Callable[[Path, int], None]] = {"run": save, **{f"export {n}": export(n) for n in exports}}
    return {kind: (sum(_killed(write, at, rng) for at in range(KILLS)), KILLS) for kind, write in writers.items()}


def _killed(write: Callable[[Path, int], None], number: int, rng: np.random.Generator) -> bool:
    """Whether a kill left something torn, or something that the next write did not sweep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, number)
        whole = _state(folder)
        child = os.fork()
        if not child:
            write(folder, number)
            os._exit(0)
        time.sleep(float(rng.uniform(0, 0.05)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            torn = _state(folder) != whole
        except (MoesimError, OSError):
            torn = True
        for part in folder.glob(".*.part"):
            os.utime(part, (0, 0))
        write(folder, number)
        return torn or any(folder.glob(".*.part"))


def _state(folder: Path) -> object:
    """What is there under its own names; a run has to be whole."""
    if (folder / "run").exists():
        return "run", stored.open_run(str(folder / "run")).document["n"] in (1, 2)
    files = [folder / "x"] if (folder / "x").is_file() else sorted((folder / "x").iterdir())
    return [(one.name, one.read_bytes()) for one in files]
