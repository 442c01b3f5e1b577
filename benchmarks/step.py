"""The spine's speed: one DeepSeek-V3 decode step, EP64 on 8 nodes, 128 tokens a GPU, 58 layers of their own routing.

    python -m benchmarks.step [--simulate]

CPU seconds (user + system) of this process, median of 5 after one warm-up; routing is looked up inside the clock of
lowering, its synthesis is outside. Bars: lowering 0.15 s, evaluate 0.05 s, simulate 30 s.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from moesim.engine import evaluate, simulate
from moesim.step import lower
from moesim.studies import load
from moesim.studies.build import build

SCENARIO = "dsv3-decode-ep72"
CHANGES = (
    "cluster.nodes=8", "parallel.data_parallel_size=64", "parallel.expert_parallel_size=64", "experts.redundant=0",
    "experts.placement=contiguous", "batch.tokens_per_gpu=128", "overlap.schedule=sequential",
)  # fmt: skip


def cpu_seconds(work: Callable[[], Any], repeats: int = 5, warm_up: bool = True) -> float:
    """Median CPU seconds of `work`."""
    if warm_up:
        work()
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def main() -> None:
    """Print each figure beside its bar."""
    built = build(load(SCENARIO, CHANGES), seed=0)
    lowered = lower(built.plan, built.batches)
    graph, capacity = lowered.graph, built.plan.fabric.capacity
    flows = sum(len(coflow.bytes) for coflow in graph.coflows)
    print(f"{graph.num_tasks} tasks, {graph.num_lanes} lanes, {len(graph.coflows)} coflows, {flows} flows")
    print(f"lowering  {cpu_seconds(lambda: lower(built.plan, built.batches)):8.3f} s   (bar  0.15)")
    print(f"evaluate  {cpu_seconds(lambda: evaluate(graph, capacity)):8.3f} s   (bar  0.05)")
    if "--simulate" in sys.argv:
        for window, bar in ((0.0, 30), (0.01, 30)):
            taken = cpu_seconds(lambda w=window: simulate(graph, capacity, window=w), 1, False)  # type: ignore[misc]
            print(f"simulate  {taken:8.3f} s   (bar {bar}), window {window:g}")


if __name__ == "__main__":
    main()
