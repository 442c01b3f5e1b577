"""Long served scenarios as `moesim run` plays them, building included, in this process: seconds and peak memory.

    python -m benchmarks.serving_pools [hour | day] [requests]

hour: the Azure conversation trace on 96 H100 in pools (dsv3-pools). day: retrieval-like traffic on 256 H200 (dsv3-day);
it begins with the hours of the least traffic.
"""

from __future__ import annotations

import sys
import time

from benchmarks.memory import peak_bytes
from moesim.studies.serving import load_serving, run_serving

BARS = {"hour": ("dsv3-pools", "60 s wall, 1 GB"), "day": ("dsv3-day", "300 CPU s, 2 GB")}


def main() -> None:
    """Print the figure beside its bar."""
    which = sys.argv[1] if len(sys.argv) > 1 else "hour"
    scenario, bar = BARS[which]
    loaded = load_serving(scenario, [f"requests.number={number}" for number in sys.argv[2:3]])
    begin, cpu = time.perf_counter(), time.process_time()
    found = {name: metric.value for name, metric in run_serving(loaded).metrics.items()}
    wall, used = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_bytes()
    steps = sum(value for name, value in found.items() if name.endswith("steps"))
    print(f"{found['completed']:,.0f} requests, {steps:,.0f} steps, {found['duration_s']:,.0f} s served")
    print(f"{wall:.1f} s wall, {used:.1f} CPU s, {peak / 1e9:.2f} GB   (bar {bar})")


if __name__ == "__main__":
    main()
