"""The spine's speed: one DeepSeek-V3 decode step, EP64 on 8 nodes, 128 tokens a GPU, 58 layers of their own routing.

    python -m benchmarks.step

By port loads (the level of loops) and by the fluid network (that of `run`). CPU seconds (user + system), median of 5
after one warm-up; routing is looked up inside the clock of lowering, its synthesis is outside.
Verbs are timed as processes of their own, with and without compiled code on disk. Then the corridor's figures
(`benchmarks.corridor`): steps filled again, collectives in the compiled pass, a long training step by patterns.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.memory import peak_bytes
from moesim.engine import TaskGraph, evaluate, simulate
from moesim.step import lower
from moesim.studies import load
from moesim.studies.build import Built, build

SCENARIO = "dsv3-decode-ep72"
CHANGES = (
    "cluster.nodes=8", "parallel.data_parallel_size=64", "parallel.expert_parallel_size=64", "experts.redundant=0",
    "experts.placement=contiguous", "batch.tokens_per_gpu=128", "overlap.schedule=sequential",
)  # fmt: skip


def cpu_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median CPU seconds of `work`, after one call that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def _built() -> Built:
    return build(load(SCENARIO, CHANGES), seed=0)


def spine() -> tuple[TaskGraph, npt.NDArray[np.float64]]:
    """The step and the capacities of its links."""
    built = _built()
    return lower(built.plan, built.batches).graph, built.plan.fabric.capacity


WATCHED = """
import runpy, sys
sys.argv[0] = "moesim"
try:
    runpy.run_module("moesim", run_name="__main__")
finally:
    print(next(line for line in open("/proc/self/status") if "VmHWM" in line), file=sys.stderr)
"""


def in_a_process(command: list[str], cache: Path) -> tuple[float, float]:
    """(CPU seconds, peak MB) of a command in an empty folder, with numba's cache in that other one."""
    with TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *command], cwd=folder, env=environment, check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, int(done.stderr.split()[-2]) / 1e3


def verbs() -> None:
    """`moesim run --demo --report` without and with compiled code on disk, and `moesim --help`."""
    with TemporaryDirectory() as cache:
        for what, bar in (("no compiled code on disk", 20), ("compiled code on disk", 8)):
            seconds, peak = in_a_process(["run", "--demo", "--report"], Path(cache))
            print(f"moesim run --demo --report, {what}: {seconds:.2f} s   (bar {bar} s), {peak:.0f} MB")
    with TemporaryDirectory() as cache:
        seconds = in_a_process(["run", "--demo"], Path(cache))[0]
        print(f"moesim run --demo, no compiled code on disk: {seconds:.2f} s   (bar 6 s)")
        print(f"moesim --help: {in_a_process(['--help'], Path(cache))[0]:.3f} s   (bar 0.2 s)")


def main() -> None:
    """Print each figure beside its bar."""
    built = _built()
    graph, capacity = spine()
    flows = sum(len(coflow.bytes) for coflow in graph.coflows)
    print(f"{graph.num_tasks} tasks, {graph.num_lanes} lanes, {len(graph.coflows)} coflows, {flows} flows")
    print(f"lower     {cpu_seconds(lambda: lower(built.plan, built.batches)):8.3f} s")
    print(f"evaluate, port loads  {cpu_seconds(lambda: evaluate(graph, capacity)):8.3f} s   (bar  0.05)")
    both = cpu_seconds(lambda: evaluate(lower(built.plan, built.batches).graph, capacity))
    print(f"lower + evaluate, port loads  {both:8.3f} s   (bar  0.15)")
    for window in (0.0, 0.01):
        taken = cpu_seconds(lambda w=window: simulate(graph, capacity, window=w), 1)  # type: ignore[misc]
        print(f"simulate, fluid network  {taken:8.3f} s   (bar 30), window {window:g}")
    print(f"peak memory of all this: {peak_bytes() / 1e6:.0f} MB   (bar 600 MB)")
    verbs()
    subprocess.run([sys.executable, "-m", "benchmarks.corridor"], check=True)


if __name__ == "__main__":
    main()
