"""What a rank of a stage holds at the most, as Megatron-LM and FSDP allocate it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from moesim.layout import (
    HBM,
    MemoryLedger,
    MemoryRow,
    Shards,
    Spread,
    row_bytes_kept,
    shared_values,
    state_rows,
    token_values,
)
from moesim.layout.shards import GRADIENTS, WEIGHTS
from moesim.schedules.pipelines import Pass
from moesim.step.optimizer import held_by, parameters_of
from moesim.training.job import Job
from moesim.training.stages import Stage

BF16, FP32 = 2, 4
ZERO, OPTIMIZER_KEY = "parallel.zero_stage", "training.optimizer"


def rank_memory(job: Job, rank: int) -> MemoryLedger:
    """Rows of the fullest rank among those at `rank` of the pipeline, in bytes: all stages that it does."""
    stages = job.stages_of(rank)
    spreads = [(stage, job.spread(stage)) for stage in stages]
    plans = [job.plan(stage) for stage in stages]
    each = [parameters_of(plan) for plan in plans]
    parameters = (sum(one[0] for one in each), sum(one[1] for one in each))
    shards = plans[0].shards
    alive, saved = job.schedule.alive(rank), {stage.number: _saved(job, spread) for stage, spread in spreads}
    states = sum(held_by(plan).state_bytes(plan.optimizer, shards) for plan in plans)
    knob = OPTIMIZER_KEY if job.zero else f"{OPTIMIZER_KEY}, {ZERO}"
    rows = [
        MemoryRow(HBM, "weights", round(BF16 * shards.kept(*parameters, WEIGHTS)), f"parallel, {ZERO}"),
        *state_rows(shards, parameters, job.gradient_bytes, states, knob),
        *_whole_layers(job, shards, stages),
        MemoryRow(HBM, f"activations of {alive} passes", _most(job, rank, saved), "batch"),
        *_again(job, [spread for _, spread in spreads if spread.model.routed]),
        *(row for stage, spread in spreads for row in _ends(job, spread, stage)),
    ]
    return MemoryLedger(tuple(rows), {HBM: job.cluster.devices[0].memory_bytes})


def checkpoint_bytes(job: Job) -> float:
    """What the fullest rank writes: master copies and moments, of which ranks that hold the same write a part each."""
    found = 0.0
    for rank in range(job.pipeline):
        plans = [job.plan(stage) for stage in job.stages_of(rank)]
        found = max(found, sum(held_by(one).state_bytes(one.optimizer, Shards.of(one.layout)) for one in plans))
    return found


def restored_bytes(job: Job) -> float:
    """What the fullest rank reads to go on: master copies and moments that it keeps itself, whole ones with DDP, of its
    shard group's where there are replicas of that (HSDP).
    """
    found = 0.0
    for rank in range(job.pipeline):
        plans = [job.plan(stage) for stage in job.stages_of(rank)]
        found = max(found, sum(held_by(one).state_bytes(one.optimizer, one.shards) for one in plans))
    return found


def _whole_layers(job: Job, shards: Shards, stages: Sequence[Stage]) -> Iterator[MemoryRow]:
    """What is whole for a while though it is kept in parts: the parameters of the layer that computes, and of the next,
    if they are gathered beside it; gradients of a layer, and of the one before, if they are reduced beside it.
    """
    parts = [part for stage in stages for part in stage.alone()]
    largest = max(_in_parts(shards, *parameters_of(job.plan(part))) for part in parts)
    if shards.stage >= WEIGHTS and largest:
        yield MemoryRow(
            HBM, "gathered layers", (1 + job.gather_beside) * BF16 * largest, "training.overlap_param_gather"
        )
    if shards.stage >= GRADIENTS and largest:
        kept = (1 + job.reduce_beside) * job.gradient_bytes * largest
        yield MemoryRow(HBM, "gradients of layers to reduce", kept, "training.overlap_grad_reduce")


def _in_parts(shards: Shards, dense: int, expert: int) -> int:
    """Of these parameters those that more than one rank shares: a rank alone keeps its own where they are used."""
    return (dense if shards.dense.shard > 1 else 0) + (expert if shards.expert.shard > 1 else 0)


def _most(job: Job, rank: int, saved: Mapping[int, int]) -> int:
    """The most bytes at once, by the pipeline's order: of each pass, from its forward to its weights' gradients, what
    its stage has saved.
    """
    held = most = 0
    for slot in job.schedule.rank(rank):
        held += sum(saved[act.stage] for act in slot if act.what == Pass.F)
        most = max(most, held)
        held -= sum(saved[act.stage] for act in slot if act.what in (Pass.B, Pass.W))
    return most


def _saved(job: Job, spread: Spread) -> int:
    """Bytes that the backward pass of one micro-batch finds again; what it recomputes is not among them."""
    moe = 0 if "moe" in job.recompute else len(spread.model.moe_layers) * _of_experts(job, spread)
    return BF16 * job.tokens_here * token_values(spread, job.recompute) + moe


def _of_experts(job: Job, spread: Spread) -> int:
    """Bytes of a micro-batch in a layer with experts, with even rows, padding included."""
    tokens = BF16 * job.tokens_here * shared_values(spread)
    if not spread.model.routed:
        return tokens
    received = job.dispatch_row_bytes if job.expert > 1 else None
    return tokens + job.rows_here * spread.expert_tensor * row_bytes_kept(spread, received)


def _again(job: Job, routed: Sequence[Spread]) -> Iterator[MemoryRow]:
    """What experts keep that are computed again: one layer of one micro-batch at a time."""
    if routed and "moe" in job.recompute:
        saved = _of_experts(job, routed[0])
        yield MemoryRow(HBM, "experts of a layer, recomputed", saved, "training.recompute, batch")


def _ends(job: Job, spread: Spread, stage: Stage) -> Iterator[MemoryRow]:
    """The vocabulary's: autograd's bf16 gradient of a table, before it is added to the fp32 one; logits in bf16 and the
    softmax in fp32, in place, over all tokens of a tensor group.
    """
    table = spread.head_gemm()
    if stage.begins or stage.ends:
        yield MemoryRow(HBM, "gradient of a vocabulary table", BF16 * table.parameters, "parallel.tensor_parallel_size")
    if stage.ends:
        logits = job.tokens_here * spread.tensor * table.n
        yield MemoryRow(HBM, "logits and loss", (BF16 + FP32) * logits, "batch.context")
