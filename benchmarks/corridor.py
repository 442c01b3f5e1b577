"""The corridor's speed: refilled steps, collectives in the compiled pass, and a long training step by patterns.

    python -m benchmarks.corridor

CPU seconds (user + system), median of 5. Every figure stands beside its bar and beside what `lower` and `evaluate` take
for the same in this run, as machines differ.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.memory import peak_bytes
from benchmarks.step import cpu_seconds
from moesim.engine import Beside, GraphBuilder, Join, Skeleton, Speed, State, Values, evaluate, play
from moesim.network import Flows, Group
from moesim.network.pattern import Pattern
from moesim.routing import TraceHeader, make_trace
from moesim.routing.counts import Counts, load_and_pairs
from moesim.routing.sources.replay import Recording
from moesim.step import Batch, Phase, StepPlan, lower
from moesim.step.fill import Refill
from moesim.studies import load
from moesim.studies.build import build

QWEN = ("demo-qwen3", (
    "model=Qwen/Qwen3-235B-A22B", "precision={weights: fp8, experts: fp8}", "batch.tokens_per_gpu=64",
))  # fmt: skip
DEEPSEEK = ("dsv3-decode-ep72", ())
WARM, STEPS = 600, 40  # steps that carry the recorded tokens over and fill the tables, and that are timed
STAGES = (4,) * 10 + (3,) * 6  # MoE layers of DeepSeek-V3 on 16 stages
REPLICAS, MICRO_BATCHES, LANES, TOKENS, EXPERTS = 2, 120, 64, 4096, 256
ROW = 7168


def refilled(name: str, overrides: tuple[str, ...], bar: float, warm: int, count: int) -> None:
    """`count` decode steps whose contexts grow by one each time, after `warm` others."""
    plan, first = _plan(name, overrides)
    other = Refill(plan)  # so that compiled code is in memory; the plan that is timed has tables of its own
    other.play(other.fill(first))
    plan, first = _plan(name, overrides)
    begin = time.process_time()
    refill = Refill(plan)
    refill.play(refill.fill(first))
    print(f"{name}: first step of the plan {(time.process_time() - begin) * 1e3:.0f} ms   (bar 150)")
    batches = iter([_later(first, steps) for steps in range(1, warm + 10 * count)])

    def step() -> int:
        return refill.play(refill.fill(next(batches)))

    for _ in range(warm):
        step()
    taken = cpu_seconds(lambda: [step() for _ in range(count)]) / count
    graph = cpu_seconds(lambda: evaluate(lower(plan, (first,)).graph, plan.fabric.capacity))
    print(f"{name}: refill and pass {taken * 1e3:.2f} ms   (bar {bar}); lower and evaluate {graph * 1e3:.1f} ms")
    interfering(name, refill, first)


def interfering(name: str, refill: Refill, first: Batch) -> None:
    """The pass alone, and with all compute at 0.8 beside a transfer."""
    values, graph, pairs = refill.fill(first), refill.skeleton.graph, refill.pool.pairs
    moves = {graph.classes[number] for number in graph.task_class[refill.skeleton.pattern >= 0].tolist()}
    others = [one for one in graph.classes if one not in moves]
    slow: dict[tuple[str, tuple[str, ...]], float] = {(one, (other,)): 0.8 for one in others for other in moves}
    beside, zero = Beside.of(refill.skeleton, pairs, Speed(slow)), State.at_zero(graph.num_ranks, len(graph.streams))
    plain = cpu_seconds(lambda: [play(refill.skeleton, values, pairs, zero) for _ in range(10)]) / 10
    taken = cpu_seconds(lambda: [beside.play(values, zero) for _ in range(10)]) / 10
    print(f"{name}: the pass {plain * 1e3:.2f} ms, with interference {taken / plain:.1f} times as long   (bar 3)")


def _plan(name: str, overrides: tuple[str, ...]) -> tuple[StepPlan, Batch]:
    built = build(load(name, overrides), 0)
    return built.plan, built.batches[0]


def _later(batch: Batch, steps: int) -> Batch:
    return Batch.of(batch.ranks, batch.rank, batch.request, 1, batch.context + steps, Phase.DECODE)


@dataclass(frozen=True)
class Stage:
    """A pattern of so many layers, alike forward and backward, on 64 lanes; capacity float64[L] B/s."""

    skeleton: Skeleton
    capacity: npt.NDArray[np.float64]

    @classmethod
    def of(cls, layers: int) -> Stage:
        """Attention, dispatch, experts, combine."""
        plan = _plan("dsv3-decode-ep72", (
            "cluster.nodes=8", "parallel={data_parallel_size: 64, expert_parallel_size: 64}", "experts={redundant: 0}",
            "batch.tokens_per_gpu=2",
        ))[0]  # fmt: skip
        group = Group(plan.fabric.cluster, np.arange(LANES, dtype=np.int32))
        there = Flows.between(group, np.ones((LANES, LANES), dtype=np.int64))
        pair = [plan.fabric.coflow("nccl", flows, group) for flows in (there, there.reversed(group))]
        builder, pattern = GraphBuilder(), list[int]()
        after: list[tuple[int, Join]] = []
        for layer in range(layers):
            for number, coflow in enumerate(pair):
                work = builder.add("work", "work", "compute", group.devices, 0.0, after=after, layer=layer)
                sent = builder.add("sent", "sent", "comm", group.devices, coflow=coflow, after=[(work, Join.LANE)])
                after, pattern = [(sent, Join.ARRIVAL)], [*pattern, -1, number]
        graph = replace(builder.build(), coflow=np.array(pattern, dtype=np.int32), coflows=())
        patterns = tuple(Pattern.of(coflow) for coflow in pair)
        return cls(Skeleton(graph, patterns, graph.coflow), plan.fabric.capacity)

    def values(self, pairs: npt.NDArray[np.int64], scale: int) -> Values:
        """pairs int64[layers, 64, 64] rows -> the values of a micro-batch."""
        away = ~np.eye(LANES, dtype=np.bool_)
        sizes = np.stack((pairs[:, away], pairs.transpose(0, 2, 1)[:, away]), axis=1) * ROW
        rows = np.repeat(pairs.sum(axis=1) * (200 * scale), 2, axis=0)  # ps a row; same before both transfers
        lane_ps = np.stack((rows, np.zeros_like(rows)), axis=1)
        return Values(lane_ps.ravel(), sizes.ravel(), np.full(self.skeleton.graph.num_tasks, 10_000_000))


def recorded(layers: int, seed: int) -> Counts:
    """40 requests of 4,096 tokens, skewed top-8 of 256 in each layer."""
    draw, tokens = np.random.default_rng(seed), 10 * TOKENS
    popularity = np.log(draw.dirichlet(np.full(EXPERTS, 2.0), layers)).astype(np.float32)
    expert = np.empty((tokens, layers, 8), dtype=np.uint16)
    for layer in range(layers):
        score = popularity[layer] + draw.gumbel(size=(tokens, EXPERTS)).astype(np.float32)
        expert[:, layer] = np.argpartition(-score, 8)[:, :8]
    number, zero = np.arange(tokens), np.zeros(tokens, dtype=np.int64)
    trace = make_trace(
        TraceHeader("drawn", layers, EXPERTS, 8, "drawn for a benchmark", ("all",)), expert, request=number // TOKENS,
        position=number % TOKENS, phase=zero, domain=zero, step=zero, source_rank=zero,
    )  # fmt: skip
    return Counts(Recording(trace, seed), EXPERTS)


def one_f_one_b(stages: int, micro_batches: int) -> list[list[tuple[int, int]]]:
    """Of each stage the order of (micro-batch, 0 forward or 1 backward)."""
    orders = []
    for stage in range(stages):
        ahead = min(stages - stage - 1, micro_batches)
        order = [(number, 0) for number in range(ahead)]
        for number in range(micro_batches - ahead):
            order += [(number + ahead, 0), (number, 1)]
        orders.append(order + [(number, 1) for number in range(micro_batches - ahead, micro_batches)])
    return orders


def by_patterns(made: dict[int, Stage], counts: dict[int, Counts]) -> tuple[int, int]:
    """A step of 2,048 ranks -> (all-to-alls played, its last tick)."""
    owner = np.tile(np.arange(EXPERTS, dtype=np.int32) // (EXPERTS // LANES), (4, 1))
    ports = {layers: stage.skeleton.pairs(stage.capacity) for layers, stage in made.items()}
    played, last = 0, 0
    for replica in range(REPLICAS):
        left = [order[::-1] for order in one_f_one_b(len(STAGES), MICRO_BATCHES)]
        state = [State.at_zero(LANES, 2) for _ in STAGES]
        ready: dict[tuple[int, int, int], npt.NDArray[np.int64]] = {}
        routed: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        while any(left):
            for number, layers in enumerate(STAGES):
                while left[number]:
                    micro_batch, way = left[number][-1]
                    first = (way == 0 and number == 0) or (way == 1 and number == len(STAGES) - 1)
                    arrived = np.zeros(LANES, np.int64) if first else ready.pop((number, micro_batch, way), None)
                    if arrived is None:
                        break
                    left[number].pop()
                    if way == 0:
                        routed[number, micro_batch] = _routing(
                            counts[layers], owner[:layers], replica, number, micro_batch
                        )
                    pairs = routed[number, micro_batch] if way == 0 else routed.pop((number, micro_batch))
                    stage, begin = made[layers], State(state[number].clock, arrived)
                    state[number], end = play(stage.skeleton, stage.values(pairs, 1 + way), ports[layers], begin)
                    ready[number + 1 - 2 * way, micro_batch, way] = state[number].clock.max(axis=1)
                    played, last = played + 2 * layers, max(last, end)
    return played, last


def _routing(
    counts: Counts, owner: npt.NDArray[np.int32], replica: int, stage: int, micro_batch: int
) -> npt.NDArray[np.int64]:
    lanes = np.arange(LANES)
    request = ((replica * len(STAGES) + stage) * MICRO_BATCHES + micro_batch) * LANES + lanes
    recorded, half = counts.recording.requests(request), np.full(LANES, TOKENS // 2)
    found = counts.stretches(recorded, request % 977, half, lanes, LANES)
    return load_and_pairs(found, owner, LANES)[1]


def collective(stage: Stage) -> None:
    """One all-to-all of 64 lanes, in the pass and by `evaluate`'s kernel."""
    draw = np.random.default_rng(0)
    values = stage.values(draw.integers(1, 60, (4, LANES, LANES)), 1)
    pairs, zero = stage.skeleton.pairs(stage.capacity), State.at_zero(LANES, 2)
    taken = cpu_seconds(lambda: [play(stage.skeleton, values, pairs, zero) for _ in range(50)]) / 50 / 8
    print(f"all-to-all of 64 lanes in the pass: {taken * 1e6:.1f} us   (bar 15), one sweep: {bool(pairs.swept.all())}")


def patterns() -> None:
    """The long training step, in a process of its own for its memory."""
    made = {layers: Stage.of(layers) for layers in set(STAGES)}
    collective(made[4])
    counts = {layers: recorded(layers, layers) for layers in set(STAGES)}
    by_patterns(made, counts)
    begin = time.process_time()
    played, last = by_patterns(made, counts)
    taken = time.process_time() - begin
    print(f"{played:,} all-to-alls of 64 lanes by patterns, a step of {last / 1e12:.2f} s: {taken:.1f} s   (bar 6)")
    print(f"peak memory of its process: {peak_bytes() / 1e6:.0f} MB   (bar 600)")


def main() -> None:
    """Print each figure beside its bar."""
    refilled(*QWEN, 1.0, WARM, STEPS)
    refilled(*DEEPSEEK, 40, 3, 1)
    subprocess.run([sys.executable, "-c", "from benchmarks import corridor; corridor.patterns()"], check=True)


if __name__ == "__main__":
    main()
