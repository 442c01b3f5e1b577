"""How fast profiles answer, load and are fitted: `python -m benchmarks.profiles [--fit SYSTEM]`.

CPU seconds (user + system), median of 5. `--fit` imports and fits one system once, children included; it needs
aiconfigurator-core 0.12.0. Bars: 1e6 grouped GEMMs of 32 groups in 1 s, a profile in 50 ms, a system in 2 x 300 CPU s.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from moesim.costs import known_profiles, load_costs
from moesim.hardware import load_cluster

GEMMS, BLOCK, GROUPS = 1_000_000, 10_000, 32


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", metavar="SYSTEM", help="also import and fit this system, e.g. h200_sxm")
    asked = parser.parse_args()
    device = load_cluster("dgx-h100").devices[0]
    costs = load_costs("h100_sxm", device)
    rows = np.random.default_rng(0).integers(0, 512, (BLOCK, GROUPS))
    row("1e6 grouped GEMMs of 32 groups", median(lambda: answer(costs, rows)), 1.0)
    for name in known_profiles():
        row(f"load {name}", median(partial(load_costs, name, device)), 0.05)
    if asked.fit:
        row(f"import and fit {asked.fit}", fit(asked.fit), 600.0)


def answer(costs: Any, rows: np.ndarray) -> None:
    """GEMMS queries in blocks, as a step would ask them."""
    for _ in range(GEMMS // BLOCK):
        costs.experts(rows, 7168, 2048, "fp8", 3)


def fit(system: str) -> float:
    """CPU seconds of `moesim calibrate import` and `fit`, with their worker processes."""
    from moesim.calibration.aiconfigurator import import_tables
    from moesim.calibration.fit import fit_profile
    from moesim.calibration.physics import label
    from moesim.calibration.systems import find_system

    found = find_system(system)
    begun = spent()
    fit_profile(label(import_tables(found.facts.table, ()), found), found)
    return spent() - begun


def spent() -> float:
    """CPU seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def median(work: Callable[[], Any]) -> float:
    """Median CPU seconds of five calls after one that warms up."""
    work()
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds)


def row(name: str, seconds: float, bar: float) -> None:
    """One line of the table."""
    print(f"{name:34} {seconds:9.3f} s   (bar {bar:g}{'' if seconds <= bar else ', MISSED'})")


if __name__ == "__main__":
    main()
