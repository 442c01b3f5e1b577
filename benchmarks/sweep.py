"""Sweeps: what two processes gain over one, what the store costs beside bare runs, and how long a resume takes.

    python -m benchmarks.sweep [--points 200]

Wall clock of the sweeps (two processes need two idle cores), CPU seconds of the rest. Bars: two processes at least 1.7
times as fast as one; one process at most 10 % above the same runs in a loop; resume of a finished sweep of 10,000
points in at most 3 s, a process and all.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from moesim.studies import run
from moesim.studies.sweeping import Plan, Point, read_plan, sweep
from moesim.studies.sweeping.executor import Answer
from moesim.studies.sweeping.subject import Subject

MANY = 10_000


class Copied:
    """An executor that answers every point with one result: what is measured is the store."""

    def __init__(self, subject: Subject) -> None:
        self.result = dict(subject.play((), 0))

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor."""
        return (Answer(point, 0, self.result) for point in points)


def demo(points: int) -> Plan:
    """So many batches of the demo."""
    return read_plan("demo-tiny", [f"batch.tokens_per_gpu=1..{128 * points}"], design="latin", points=points)


def bare(plan: Plan, half: int) -> float:
    """CPU seconds of every second run alone, after one that loads what is compiled. half: 0 before, 1 after a sweep: a
    machine that others slow down meanwhile slows both.
    """
    overrides = [f"{plan.keys[0]}={values[0]}" for values in plan.combinations()]
    run("demo-tiny")
    begun = time.process_time()
    for text in overrides[half::2]:
        run("demo-tiny", overrides=[text])
    return time.process_time() - begun


def children() -> float:
    """CPU seconds of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def swept(plan: Plan, jobs: int) -> tuple[float, float]:
    """(wall, CPU) seconds of a sweep, with its processes."""
    with TemporaryDirectory() as folder:
        begun, used = time.perf_counter(), time.process_time() + children()
        sweep(plan, jobs=jobs, folder=Path(folder, "store"))
        return time.perf_counter() - begun, time.process_time() + children() - used


def resumed() -> tuple[float, float]:
    """(wall, CPU) seconds of `moesim sweep` on a finished sweep of MANY points."""
    settings = [
        f"batch.tokens_per_gpu={','.join(map(str, range(1, 101)))}",
        f"batch.context={','.join(map(str, range(1, 101)))}",
    ]
    plan = read_plan("demo-tiny", settings)
    with TemporaryDirectory() as folder:
        sweep(plan, folder=Path(folder, "store"), executor=Copied(plan.subject))
        words = [word for text in settings for word in ("--set", text)]
        command = [sys.executable, "-m", "moesim", "sweep", "demo-tiny", *words, "--out", "store"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        begun, used = time.perf_counter(), children()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - begun, children() - used


def main() -> None:
    """Print each figure beside its bar."""
    parser = argparse.ArgumentParser(description="sweeps")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--only", choices=("resume", "sweep"))
    given = parser.parse_args()
    if given.only != "sweep":
        wall, used = resumed()
        print(f"resume of {MANY:,} points: {wall:.2f} s, {used:.2f} s CPU   (bar 3 s)")
    if given.only != "resume":
        plan = demo(given.points)
        alone = bare(plan, 0)
        one, spent = swept(plan, 1)
        alone += bare(plan, 1)
        two, _ = swept(plan, 2)
        print(f"{given.points} bare runs: {alone:.2f} s CPU; a sweep by one process: {one:.2f} s, {spent:.2f} s CPU")
        print(f"above the bare runs: {spent / alone - 1:+.1%} CPU   (bar 10 %)")
        print(f"two processes: {two:.2f} s, {one / two:.2f} times as fast as one   (bar 1.7)")


if __name__ == "__main__":
    main()
