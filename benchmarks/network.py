"""`python -m benchmarks.network`: what the network costs, beside SimGrid on the same flows where that is installed.

CPU seconds of one process, median of 3 after a warm-up; ours include building the solver's state, SimGrid's only its
run phase, in the better of its two modes. `--quick` leaves out what SimGrid needs minutes for (128 GPUs).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import simgrid
from benchmarks.problems import Problem, skewed, tokens, uniform
from benchmarks.step import cpu_seconds, spine
from moesim.engine import simulate
from moesim.network.fluid import finish_times
from moesim.network.port_times import matrix_seconds
from moesim.streams import stream

WINDOW = 0.01
GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "network"
MOST_EXACT = 256  # GPUs; beyond it only the windowed solver is timed
GROWTH = (8, 16, 32, 64, 128, 256, 512, 1024)
# problem, bar of the exact ratio, bar of the windowed one; the last three need minutes
BESIDE_SIMGRID: tuple[tuple[Callable[[], Problem], int, int | None], ...] = (
    (lambda: skewed(64), 8, None), (lambda: skewed(64, 2), 8, None), (lambda: tokens(64), 8, None),
    (lambda: tokens(64, 2, pxn=True), 50, None), (lambda: uniform(32), 4, None), (lambda: uniform(64), 4, None),
    (lambda: uniform(64, 2), 4, None), (lambda: uniform(128), 4, None), (lambda: tokens(128, 2, pxn=True), 50, None),
    (lambda: tokens(128), 15, 100), (lambda: skewed(128), 15, 100),
)  # fmt: skip
SLOW = 3  # of the rows above


def ours(problem: Problem, window: float = 0.0) -> npt.NDArray[np.float64]:
    """finish float64[F] s."""
    return finish_times(problem.capacity, problem.ptr, problem.idx, problem.size, window=window)


def seconds(problem: Problem, window: float = 0.0, repeats: int = 3) -> float:
    """CPU seconds of that."""
    return cpu_seconds(lambda: ours(problem, window), repeats)


def errors(found: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[F]: relative, 0 where both are 0."""
    return np.asarray(np.abs(found - right) / np.maximum(right, 1e-300))


def golden() -> None:
    """The stored problems: the worst flow of all."""
    worst = 0.0
    cases = sorted(GOLDEN.glob("*.npz"))
    for path in cases:
        case = np.load(path)
        found = finish_times(case["capacity"], case["ptr"], case["idx"], case["bytes"], case["start"])
        worst = max(worst, float(errors(found, case["finish"]).max()))
    print(f"{len(cases)} golden cases: worst flow {worst:.1e} relative   (bar 1e-9)")


def beside_simgrid(quick: bool) -> None:
    """A row per problem: seconds, how many times faster, and how far single flows are off."""
    print(f"\n{'':34}{'SimGrid':>12}{'exact':>9}{'times':>7}{'bar':>5}  worst flow{'window':>10}{'times':>7}{'bar':>5}"
          "  mean and worst flow")  # fmt: skip
    for make, bar, window_bar in BESIDE_SIMGRID[:-SLOW] if quick else BESIDE_SIMGRID:
        problem = make()
        exact, loose = seconds(problem), seconds(problem, WINDOW)
        played = simgrid.play(problem)
        right = played.finish if played else ours(problem)
        off, far = errors(ours(problem), right), errors(ours(problem, WINDOW), right)
        theirs = f"{played.seconds:9.3f} {played.mode[0]} " if played else f"{'none':>12}"
        ratios = [f"{played.seconds / own:6.0f}x" if played else "      -" for own in (exact, loose)]
        print(f"{problem.name:34}{theirs}{exact:9.4f}{ratios[0]}{bar:4}x{off.max():12.1e}{loose:10.4f}{ratios[1]}"
              f"{f'{window_bar}x' if window_bar else '':>5}  {far.mean():.1e} {far.max():.1e}", flush=True)  # fmt: skip


def growth() -> None:
    """Seconds against GPUs and flows, and the exponent fitted to the larger half."""
    print(f"\n{'GPUs':>6}{'flows':>10}{'exact':>10}{f'window {WINDOW:g}':>14}")
    rows: list[tuple[int, float, float]] = []
    for gpus in GROWTH:
        problem = skewed(gpus)
        exact = seconds(problem, repeats=1) if gpus <= MOST_EXACT else np.nan
        rows.append((len(problem.size), exact, seconds(problem, WINDOW, repeats=1)))
        print(f"{gpus:6}{rows[-1][0]:10}{exact:10.4f}{rows[-1][2]:14.4f}", flush=True)
    table = np.array(rows)
    for column, name in ((1, "exact"), (2, f"window {WINDOW:g}")):
        known = np.flatnonzero(np.isfinite(table[:, column]))[-4:]
        by_flow = np.polyfit(np.log(table[known, 0]), np.log(table[known, column]), 1)[0]
        by_gpu = np.polyfit(np.log(np.array(GROWTH)[known]), np.log(table[known, column]), 1)[0]
        print(f"{name}: seconds grow as GPUs^{by_gpu:.2f}, flows^{by_flow:.2f} (last 4 rows)")


def steps() -> None:
    """One large all-to-all, many collectives by port loads, and the decode step of the spine."""
    print(f"skewed all-to-all, 256 GPUs, window {WINDOW:g}: {seconds(skewed(256), WINDOW):.3f} s   (bar 2 s)")
    matrix = stream(0, "benchmark", "matrix").integers(0, 1_000_000, (116, 320, 320))
    node = (np.arange(320) // 8).astype(np.int32)
    taken = cpu_seconds(lambda: matrix_seconds(matrix, node, 450e9, 50e9))
    print(f"116 byte matrices of 320 GPUs, port loads: {1e3 * taken:.1f} ms   (bar 20 ms)")
    graph, capacity = spine()
    for window, bar in ((0.0, 12), (WINDOW, 3)):
        taken = cpu_seconds(lambda w=window: simulate(graph, capacity, window=w), 1)  # type: ignore[misc]
        print(
            f"DeepSeek-V3 decode step, EP64, 116 all-to-alls, window {window:g}: simulate {taken:.2f} s   (bar {bar} s)"
        )


def main() -> None:
    """Every figure beside its bar."""
    quick = "--quick" in sys.argv
    golden()
    steps()
    growth()
    beside_simgrid(quick)
    if simgrid.driver() is None:
        print(
            "SimGrid is not installed (apt-get install libsimgrid-dev g++): no ratios; errors against our exact times"
        )


if __name__ == "__main__":
    main()
