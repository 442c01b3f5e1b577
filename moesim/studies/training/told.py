"""What a Result tells of a step: with even rows, and with rows of every micro-batch's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from moesim.engine import FLUID_GPUS
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.schedules.pipelines import Slot
from moesim.training import Job, RoutedStep, StepTime, overlapped_ps, plays_fluid, routed_step, train_step
from moesim.units import from_ps

EVEN: Final = (
    "routing: every expert gets equal rows, ranks of a stage are alike: waiting inside a stage is not modelled"
)
SYNC, UPDATE = "gradients and parameters", "optimizer"
MEMORY: Final = "memory is counted with even rows: ranks with more rows of experts than others hold more than it says"
TURNS: Final = (
    "passes that overlap are queued in turns, whichever can go on first, gradients of weights where nothing else can; "
    "no slot is shorter than the chain of computing and transfers of its backward pass, recomputed ones included"
)
DROPPED: Final = (
    "rows without a place are not computed: mfu and TFLOP/s count their FLOPs all the same, imbalance_cost_s is beside "
    "even rows, of which fewer are dropped or none"
)
BOUND: Final = (
    "passes that overlap hide all-to-alls behind any of their compute: a lower bound, where experts lie over tensor "
    "groups, layers are sharded, or expert groups cut nodes"
)

FLUID: Final = "layers are played by the fluid network: GPUs share ports, or flows meet away from the GPUs' own links"
PORTS: Final = (
    "GPUs share ports, or flows meet away from the GPUs' own links, and passes that overlap, rows of ranks' own and "
    f"groups of more than {FLUID_GPUS} GPUs are played by port loads, which time a GPU's transfers by its own bytes: a "
    "lower bound"
)


class Done(NamedTuple):
    """What a rank of the pipeline does from start to end, in ps: a slot, or what follows the last one."""

    rank: int
    what: str
    start: int
    end: int


class Told(NamedTuple):
    """seconds of the step; breakdown of the rank that ends last, which adds up to them; bubble: share of the ranks'
    time before the end of the passes in which they wait for other stages; alltoall: seconds of the rank with most; hop:
    of what a stage hands on; busy: of each pipeline rank; more: metrics; ranks: stages of each rank; done: of one
    GPU of each rank with even rows, else of the first island's.
    """

    seconds: float
    breakdown: dict[str, float]
    bubble: float
    alltoall: float
    hop: float
    busy: tuple[float, ...]
    more: dict[str, tuple[float, str]]
    ranks: tuple[tuple[int, ...], ...]
    provenance: dict[str, Any]
    notes: tuple[str, ...]
    done: tuple[Done, ...]


def even_told(job: Job) -> Told:
    """One rank stands for all of its stage. Raises BadInput, Deadlock."""
    overlapped = overlapped_ps(job)
    step = train_step(job, overlapped)
    exposed = [_exposed(step, rank) for rank in range(job.pipeline)]
    chosen = job.tokens_here * job.model.top_k
    more = {"drop_rate": (max(0.0, 1 - job.rows_here / chosen), "1")} if job.limit else {}
    return Told(
        step.seconds, _breakdown(step), step.played.bubble, float(from_ps(max(one[0] for one in exposed))),
        float(from_ps(step.transfer)), tuple(busy / step.played.makespan for busy in step.played.busy), more,
        step.ranks,
        {"routing": "balanced, assumed" if job.model.routed else "none"}, _even_notes(job, overlapped is None),
        tuple(_even_done(step)),
    )  # fmt: skip


def _even_notes(job: Job, bound: bool) -> tuple[str, ...]:
    """Of experts, where there are some, and of ports that GPUs share."""
    overlaps, experts = job.overlaps, bool(job.model.routed)
    fluid = plays_fluid(job) and not overlaps
    said = (
        (experts, EVEN), (experts and bound, BOUND), (overlaps and not bound, TURNS), (fluid, FLUID),
        (job.meets and not fluid, PORTS),
    )  # fmt: skip
    return tuple(text for true, text in said if true)


def routed_told(job: Job, source: Sequences) -> Told:
    """Every rank has rows of its own; beside it the same with even ones. Raises BadInput, Deadlock."""
    step = routed_step(job, source)
    even = routed_step(job, Sequences(Balanced(job.model), 1), 1)
    lanes, makespan = step.lanes, int(step.ends.max())
    busy = (lanes.end - lanes.stages).mean(axis=(1, 2)) / makespan
    waits = {
        "waiting_group_s": lanes.group, "waiting_stages_s": lanes.stages + (makespan - step.ends)[:, None, None],
        "waiting_replicas_s": step.replicas,
    }  # fmt: skip
    more = {name: (float(from_ps(value.mean())), "s") for name, value in waits.items()}
    more["imbalance_cost_s"] = (step.seconds - even.seconds, "s")
    more |= {"drop_rate": (step.drop_rate, "1")} if job.limit else {}
    said = [*([DROPPED] if step.drop_rate > 0 else []), *([TURNS] if job.overlaps else []),
            *([PORTS] if job.meets else [])]  # fmt: skip
    return Told(
        step.seconds, _routed_breakdown(step), float(1 - busy.mean()), float(from_ps(step.exposed[0].max())),
        float(from_ps(step.transfer)), tuple(busy.tolist()), more, step.ranks,
        {"routing": source.basis, "routing_source": source.name, "alltoalls": step.alltoalls},
        (*source.notes, MEMORY, *said), tuple(_routed_done(step)),
    )  # fmt: skip


def _routed_breakdown(step: RoutedStep) -> dict[str, float]:
    """Seconds of the one GPU that ends last."""
    at = step.last
    compute, group, stages, _ = (int(part[at]) for part in step.lanes)
    exchange, ring = (int(part[at]) for part in step.exposed)
    sync, update = step.after[at[0]].tolist()
    found = {
        "compute_s": compute, "exposed_alltoall_s": exchange, "exposed_tensor_parallel_s": ring,
        "waiting_group_s": group, "bubble_s": stages, "gradient_sync_s": sync, "optimizer_s": update,
    }  # fmt: skip
    return {name: float(from_ps(value)) for name, value in found.items()}


def _breakdown(step: StepTime) -> dict[str, float]:
    """Seconds of the rank that ends last; they add up to the step. Others may have more of a part: DeepSeek-V3's first
    stage, which ends last in 1F1B, has no experts.
    """
    after = [[step.passes[stage] for stage in stages] for stages in step.ranks]
    last = max(range(len(after)), key=lambda rank: step.played.end[rank][-1] + sum(one.after for one in after[rank]))
    exchange, ring, shard = _exposed(step, last)
    busy = step.played.busy[last]
    found = {
        "compute_s": busy - exchange - ring - shard, "exposed_alltoall_s": exchange, "exposed_tensor_parallel_s": ring,
        "exposed_sharding_s": shard,
        "bubble_s": step.played.end[last][-1] - busy, "gradient_sync_s": sum(one.sync for one in after[last]),
        "optimizer_s": sum(one.update for one in after[last]),
    }  # fmt: skip
    return {name: float(from_ps(value)) for name, value in found.items()}


def _exposed(step: StepTime, rank: int) -> tuple[float, float, float]:
    """Picoseconds of a rank that nothing hides: all-to-alls, transfers of its tensor group, of its shard group."""
    parts = [step.exposed_ps(slot) for slot in step.played.orders[rank]]
    return sum(part[0] for part in parts), sum(part[1] for part in parts), sum(part[2] for part in parts)


def _even_done(step: StepTime) -> Iterator[Done]:
    played = step.played
    for rank, slots in enumerate(played.orders):
        for slot, start, end in zip(slots, played.start[rank], played.end[rank], strict=True):
            yield Done(rank, words(slot), start, end)
        after = [step.passes[stage] for stage in step.ranks[rank]]
        yield from _behind(rank, played.end[rank][-1], sum(one.sync for one in after), sum(one.update for one in after))


def _routed_done(step: RoutedStep) -> Iterator[Done]:
    yield from (Done(rank, words(slot), start, end) for rank, slot, start, end in step.done)
    for rank, (sync, update) in enumerate(step.after.tolist()):
        yield from _behind(rank, int(step.ends[rank]), sync, update)


def _behind(rank: int, at: int, sync: int, update: int) -> Iterator[Done]:
    yield Done(rank, SYNC, at, at + sync)
    yield Done(rank, UPDATE, at + sync, at + sync + update)


def words(slot: Slot) -> str:
    """As pictures and traces name it: "F3 of stage 1", passes that overlap joined by "+"."""
    return " + ".join(f"{act.what.name}{act.micro_batch} of stage {act.stage}" for act in slot)
