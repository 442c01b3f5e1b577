"""What a step's fullest device holds, and the largest batch that would fit where it is too much."""

from __future__ import annotations

from bisect import bisect_left

from moesim.errors import DoesNotFit
from moesim.layout import MemoryLedger, Residency, Rows, serving_ledger, training_ledger
from moesim.step import StepPlan
from moesim.studies.scenario import BatchSection, Scenario


def fitting_memory(scenario: Scenario, plan: StepPlan, rows: Rows | None = None) -> MemoryLedger:
    """As `memory_of`. Raises DoesNotFit with the table, and the largest `tokens_per_gpu` that fits where one does."""
    memory = memory_of(scenario, plan, rows)
    try:
        memory.check()
    except DoesNotFit as error:
        most = most_tokens(scenario, plan, rows)
        fewer = f"batch.tokens_per_gpu: {most}{' or so' if rows else ''}; or " if most else ""
        raise DoesNotFit(error.what, way_out=fewer + error.way_out) from None
    return memory


def most_tokens(scenario: Scenario, plan: StepPlan, rows: Rows | None = None) -> int:
    """The largest tokens_per_gpu, up to the scenario's, whose ledger fits; 0 where no sequence does.

    rows: as many of them a token as were seen with the scenario's batch (fewer tokens spread less evenly).
    """
    batch = scenario.batch
    unit = 1 if batch.phase == "decode" else batch.context
    given = batch.tokens_per_gpu // unit

    def scaled(many: int, sequences: int) -> int:
        return -(-many * sequences // given)

    def too_much(sequences: int) -> bool:
        fewer = batch.model_copy(update={"tokens_per_gpu": sequences * unit})
        seen = rows and Rows(*(scaled(many, sequences) for many in rows))._replace(router=rows.router)
        memory = memory_of(scenario.model_copy(update={"batch": fewer}), plan, seen)
        return any(memory.used(pool) > capacity for pool, capacity in memory.capacity.items())

    return unit * bisect_left(range(1, given + 1), True, key=too_much)


def memory_of(scenario: Scenario, plan: StepPlan, rows: Rows | None = None) -> MemoryLedger:
    """What the fullest device holds, its placement included. rows: those that a step was seen to receive; before one is
    lowered, an even share of top-k rows a token.
    """
    batch, precision = scenario.batch, plan.ops.precision
    decode = batch.phase == "decode"
    sequences, cached = (batch.tokens_per_gpu, batch.context + 1) if decode else _whole(batch)
    if rows is None:
        each = batch.tokens_per_gpu * plan.model.top_k * plan.layout.expert_tensor_parallel
        rows = Rows(each, each * len(plan.model.moe_layers))
    keeps = Residency(
        precision.weights, precision.experts, precision.kv_cache, sequences, cached, batch.tokens_per_gpu, rows,
        plan.reserved_bytes(batch.tokens_per_gpu), plan.received_bytes,
    )  # fmt: skip
    size = plan.fabric.cluster.smallest_memory
    if batch.phase == "train":
        return training_ledger(
            plan.ops.spread, plan.layout, plan.placement, keeps, plan.recompute, plan.optimizer, size
        )
    return serving_ledger(plan.ops.spread, plan.placement, keeps, size)


def _whole(batch: BatchSection) -> tuple[int, int]:
    """Sequences and tokens of each, where a batch is of whole ones."""
    return batch.tokens_per_gpu // batch.context, batch.context
