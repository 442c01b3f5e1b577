"""One hour of the Azure conversation trace on 96 H100 in pools: wall seconds and peak memory.

    python -m benchmarks.serving_pools [requests]

The shipped scenario dsv3-pools as `moesim run` plays it, building included, in this process.
"""

from __future__ import annotations

import resource
import sys
import time

from moesim.studies.serving import run_serving

WALL, MEMORY = 60.0, 1e9  # bars: seconds, bytes


def main() -> None:
    """Print the figure beside its bar."""
    changes = [f"requests.number={sys.argv[1]}"] if len(sys.argv) > 1 else []
    begin, cpu = time.perf_counter(), time.process_time()
    found = run_serving("dsv3-pools", overrides=changes).metrics
    wall, used = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps = found["prefill_steps"].value + found["decode_steps"].value
    print(f"{found['completed'].value:,.0f} requests, {steps:,.0f} steps, {found['duration_s'].value:,.0f} s served")
    print(f"{wall:.1f} s wall (bar {WALL:.0f}), {used:.1f} CPU s; {peak / 1e9:.2f} GB (bar {MEMORY / 1e9:.0f})")


if __name__ == "__main__":
    main()
