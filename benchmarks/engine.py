"""`python -m benchmarks.engine`: CPU seconds of both players on a synthetic DeepSeek-V3 decode step.

64 ranks on 8 nodes, 58 MoE layers of 26 tasks, 116 all-to-alls of about 4,000 skewed flows each; median of 5.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from benchmarks.memory import peak_bytes
from moesim.engine import GraphBuilder, Join, TaskGraph, evaluate, simulate
from moesim.network import Coflow
from moesim.streams import stream

RANKS, NODES, LAYERS = 64, 8, 58
Ints = npt.NDArray[np.int32]
NVLINK, NIC = 450e9, 50e9  # B/s each way: H100 SXM, ConnectX-7
ROW = 7168


def fabric(ranks: int = RANKS) -> npt.NDArray[np.float64]:
    """float64[4 * ranks] B/s: NVLink up and down, NIC out and in of each rank."""
    return np.repeat([NVLINK, NVLINK, NIC, NIC], ranks)


def paths(
    source: npt.NDArray[np.int32], target: npt.NDArray[np.int32], ranks: int, per_node: int
) -> npt.NDArray[np.int32]:
    """int32[F, 2]: links of each flow."""
    near = source // per_node == target // per_node
    first = np.where(near, source, 2 * ranks + source)
    return np.stack([first, np.where(near, ranks + target, 3 * ranks + target)], axis=1).astype(np.int32)


def all_to_all(seed: int, layer: int, row_bytes: int, ranks: int = RANKS, per_node: int = 8) -> Coflow:
    """128 tokens a rank, top 8, rank popularity log-normal: bytes differ by pair, layer and direction."""
    draw = stream(seed, "benchmark", layer)
    share = draw.lognormal(0.0, 0.5, ranks)
    rows = draw.multinomial(128 * 8, share / share.sum(), size=ranks)
    np.fill_diagonal(rows, 0)
    source, target = (column.astype(np.int32) for column in np.nonzero(rows))
    return Coflow(
        lanes=ranks,
        owner_ptr=np.searchsorted(source, np.arange(ranks + 1)).astype(np.int64),
        source=source,
        destination=target,
        bytes=(rows[source, target] * row_bytes).astype(np.int64),
        path=paths(source, target, ranks, per_node),
        alpha=31e-6,
    )


def decode_step(seed: int = 0, layers: int = LAYERS, ranks: int = RANKS) -> TaskGraph:
    """One micro-batch through `layers` MoE layers: about 26 tasks a layer, two of them all-to-alls."""
    builder, group = GraphBuilder(), np.arange(ranks, dtype=np.int32)
    draw = stream(seed, "benchmark", "seconds")
    last: list[tuple[int, Join]] = []

    def compute(name: str, mean: float, layer: int) -> None:
        seconds = mean * draw.lognormal(0.0, 0.08, ranks)
        last[:] = [(builder.add(name, name, "compute", group, seconds, after=last, layer=layer), Join.LANE)]

    for layer in range(layers):
        for part in range(11):
            compute(f"attention{part}", 20e-6, layer)
        sent = builder.add(
            "dispatch",
            "dispatch",
            "comm",
            group,
            coflow=all_to_all(seed, 2 * layer, ROW, ranks),
            after=last,
            layer=layer,
        )
        compute("shared", 15e-6, layer)
        last[:] = [(sent, Join.ARRIVAL), *last]
        for part in range(4):
            compute(f"experts{part}", 25e-6, layer)
        back = builder.add(
            "combine", "combine", "comm", group, coflow=all_to_all(seed, 2 * layer + 1, 2 * ROW, ranks), after=last,
            layer=layer,
        )  # fmt: skip
        last[:] = [(back, Join.ARRIVAL)]
        for part in range(8):
            compute(f"merge{part}", 3e-6, layer)
    return builder.build()


def fresh(graph: TaskGraph) -> TaskGraph:
    """The graph as a player first sees it: nothing worked out yet."""
    return replace(graph, lane_seconds=graph.lane_seconds)


def measure(what: str, play: Callable[[], object], repeats: int = 5) -> None:
    """Print the median of the CPU seconds of `repeats` plays, after one that warms up."""
    play()
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        play()
        spent.append(time.process_time() - begin)
    print(f"{what}: {statistics.median(spent):.4f} s CPU (median of {repeats}, {min(spent):.4f} to {max(spent):.4f})")


def main() -> None:
    """Build the graph, time both players, print the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    graph, capacity = decode_step(), fabric()
    flows = sum(len(coflow.bytes) for coflow in graph.coflows)
    print(f"{graph.num_tasks} tasks, {graph.num_lanes} lanes, {len(graph.coflows)} coflows, {flows} flows")
    measure("evaluate, port loads", lambda: evaluate(fresh(graph), capacity), arguments.repeats)
    measure("evaluate, no network", lambda: evaluate(fresh(graph), capacity, network="none"), arguments.repeats)
    measure("simulate, port loads", lambda: simulate(graph, capacity, network="port_load"), arguments.repeats)
    measure("simulate, fluid, window 1 %", lambda: simulate(graph, capacity, window=0.01), arguments.repeats)
    measure("simulate, fluid, exact", lambda: simulate(graph, capacity), arguments.repeats)
    print(f"peak memory: {peak_bytes() / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
