"""ServeScenario -> a replica's plan, the blocks of its KV cache, and its clock. All checks here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moesim.errors import BadInput, DoesNotFit
from moesim.hardware import refuse_mixed
from moesim.layout import HBM, MemoryLedger, MemoryRow, Placement, Residency, Rows, serving_ledger
from moesim.placement.migration import KERNEL
from moesim.serving import Book, Clock, Hosted, Replica, Scheduler, Settings
from moesim.serving.fleet import Outage
from moesim.serving.rebalancing import Rebalance, Rebalanced
from moesim.serving.speculation import drafted
from moesim.serving.stages import Inside, Stage, Staged
from moesim.serving.swap import HostMemory
from moesim.serving.tiers import Tier
from moesim.step import CostLog, StepPlan
from moesim.step.pace import Pace, Renewals
from moesim.studies.build import Draft, draft, idle_notes
from moesim.studies.placement import find_placement
from moesim.studies.serving.fleet_sections import outages_of
from moesim.studies.serving.load import PoolLoaded, ServeLoaded
from moesim.studies.serving.scenario import ServeScenario
from moesim.studies.serving.stages import BuiltStage, build_stages
from moesim.units import show_bytes

NEVER = 1 << 62  # uses of a routing that is never looked up anew
KV_KNOB = "scheduler.gpu_memory_utilization"


@dataclass(frozen=True)
class Memory:
    """The fullest rank: its ledger, the KV cache as its last row; blocks of one scheduler, of block_size tokens, whose
    part on a rank is block_bytes.
    """

    ledger: MemoryLedger
    blocks: int
    block_size: int
    block_bytes: float


@dataclass(frozen=True)
class ServeBuilt:
    """A serving system, sealed: everything a run needs."""

    scenario: ServeScenario
    plan: StepPlan
    settings: Settings
    memory: Memory
    log: CostLog
    rebalance: Rebalance | None
    host: HostMemory | None
    warnings: tuple[str, ...]
    placement_source: str
    stages: tuple[BuiltStage, ...] = ()

    def clock(self) -> Pace:
        """A new one: its tables are those of the plan, its lookups its own. Raises BadInput."""
        return Pace(self.plan, self._renewed)

    @property
    def _renewed(self) -> int:
        return NEVER if self.scenario.renew == "never" else self.scenario.renew

    def replicas(
        self, book: Book, clock: Pace, first: Sequence[int] = (), *, hands_over: bool = False
    ) -> Sequence[Replica]:  # fmt: skip
        """The scenario's replicas on a book, by one clock: they are alike until their experts move. first: the number
        of the first GPU of each; hands_over: others answer.
        """
        inside = self._inside(book)
        with_host = self._hosted(clock, self.plan, inside)
        places = first or [number * self.plan.layout.world for number in range(self.scenario.most_replicas)]
        clocks = [self._moving(with_host, clock.counted, inside) for _ in places]
        pool = self.host.shared() if self.host else None
        pairs = zip(clocks, places, strict=True)
        return [self._replica(book, one, place, pool, hands_over=hands_over) for one, place in pairs]

    @property
    def beside(self) -> tuple[MemoryRow, ...]:
        """What stages hold on the replicas' GPUs."""
        return _beside(self.stages)

    @property
    def before(self) -> tuple[Stage, ...]:
        """Stages with devices of their own, on the way to the replicas."""
        return tuple(one.stage for one in self.stages if one.stage.servers)

    def _inside(self, book: Book) -> Inside | None:
        """Stages that steps wait for; the book counts their work."""
        stages = [one.stage for one in self.stages if not one.stage.servers]
        if not stages:
            return None
        book.inside.append(Inside(stages, book, self.plan.layout.tensor_parallel))
        return book.inside[-1]

    def _hosted(self, clock: Clock, plan: StepPlan, inside: Inside | None) -> Clock:
        ways, layers = plan.layout.tensor_parallel, plan.model.num_layers
        hosted = Hosted(drafted(clock, self.settings, plan), self.settings, layers, ways)
        return Staged(hosted, inside) if inside else hosted

    def _moving(self, clock: Clock, counted: Renewals, inside: Inside | None) -> Clock:
        """Of a replica whose experts move, where they do; counted: by all of its placements' clocks together."""

        def other(placement: Placement) -> Clock:
            plan = replace(self.plan, placement=placement)
            return self._hosted(Pace(plan, self._renewed, counted), plan, inside)

        return Rebalanced(clock, self.plan, self.rebalance, other) if self.rebalance else clock

    @property
    def outages(self) -> tuple[Outage, ...]:
        """Of the replicas. Raises BadInput where what dies is none of theirs."""
        cluster, world = self.plan.fabric.cluster, self.plan.layout.world
        places = [range(number * world, (number + 1) * world) for number in range(self.scenario.most_replicas)]
        return outages_of(self.scenario.faults, {None: places}, cluster.gpus_per_node, cluster.num_devices)

    def _replica(self, book: Book, clock: Clock, device: int, pool: Tier | None, *, hands_over: bool) -> Replica:
        layout, settings, blocks, ttft = self.plan.layout, self.settings, self.memory.blocks, self.scenario.slo.ttft
        schedulers = [
            Scheduler(settings, book, blocks, hands_over=hands_over, ttft=ttft, host=self.host, pool=pool)
            for _ in range(layout.data_parallel)
        ]
        return Replica(schedulers, clock, layout.tensor_parallel, ahead=settings.schedule_ahead, device=device)


def build_serving(loaded: ServeLoaded, seed: int) -> ServeBuilt:
    """Check and seal. Raises BadInput, or DoesNotFit where no block of KV is left."""
    settings = loaded.scenario.scheduler.settings()
    if settings.prefill_schedule_interval > 1 and loaded.step.scenario.parallel.data_parallel_size == 1:
        raise BadInput(
            "acts where a replica has several data-parallel ranks, as in vLLM",
            where="scheduler.prefill_schedule_interval", way_out="data_parallel_size: 2 or more, or leave it out",
        )  # fmt: skip
    refuse_mixed(loaded.scenario.cluster.topology, "mode: serve")
    made = draft(loaded.step, seed)
    found = find_placement(loaded.step, made.plan, made.batches[0], seed)
    plan = replace(made.plan, placement=found.placement, replicas=found.replicas, host_seconds=settings.host_time)
    stages = build_stages(loaded, settings, seed)
    memory = kv_memory(plan, settings, _beside(stages))
    pooled, moves = isinstance(loaded.step, PoolLoaded), loaded.scenario.rebalance
    standing = _without_idle(made, 0 if pooled else loaded.scenario.most_replicas)
    lent = [note for note in made.plan.fabric.lent(KERNEL) if moves and note not in made.warnings]
    offload, device = loaded.scenario.kv_offload, plan.fabric.cluster.devices[0]
    host = offload.memory(device, memory.block_bytes, plan.layout.tensor_parallel) if offload else None
    offloaded = offload.notes(device) if offload else ()
    warnings = (*standing, *lent, *made.routing_notes, *found.notes, *offloaded)
    weights = next((row.bytes for row in memory.ledger.rows if row.item == "expert weights"), 0)
    rule = moves.rule(plan, weights, seed) if moves else None
    return ServeBuilt(loaded.scenario, plan, settings, memory, made.log, rule, host, warnings, found.source, stages)


def _beside(stages: Sequence[BuiltStage]) -> tuple[MemoryRow, ...]:
    return tuple(row for one in stages if not one.stage.servers for row in one.rows)


def _without_idle(made: Draft, replicas: int) -> list[str]:
    """Warnings; GPUs that one replica leaves are another's, as far as there are some; those that lack are counted.
    replicas: 0 of a pool, whose cluster is the nodes of one replica: who stands where is said of all pools together.
    """
    cluster, layout = made.plan.fabric.cluster, made.plan.layout
    taken = replicas * layout.world
    alone, idle = idle_notes(made.plan), cluster.num_devices - taken
    if replicas == 1:
        return list(made.warnings)
    rest = [text for text in made.warnings if text not in alone]
    if replicas and idle < 0:
        nodes = -(-taken // cluster.gpus_per_node)
        over = (
            f"{replicas} replicas take {taken} GPUs, the cluster has {cluster.num_devices}: more like them are assumed"
        )
        return [f"{over}; cluster.nodes: {nodes} has them", *rest]
    left = f"{idle} of the cluster's {cluster.num_devices} GPUs are idle, {replicas} replicas have the others"
    return [left, *rest] if replicas and idle > 0 else rest


def kv_memory(plan: StepPlan, settings: Settings, beside: Sequence[MemoryRow] = ()) -> Memory:
    """What weights and buffers leave for KV, those `beside` the model among them, in blocks. Raises DoesNotFit with the
    table.
    """
    precision, ways = plan.ops.precision, plan.layout.tensor_parallel
    whole = plan.ops.spread.residual == "replicated"  # every rank has all tokens of its group
    live = settings.max_num_batched_tokens if whole else -(-settings.max_num_batched_tokens // ways)
    each = live * plan.model.top_k * (1 if whole else plan.layout.expert_tensor_parallel)
    dtypes = (precision.weights, precision.experts, precision.kv_cache)
    states = -(-settings.max_num_seqs // ways)  # recurrences keep one for each sequence, however short
    keeps = Residency(*dtypes, states, 0, live, Rows(each, each), plan.reserved_bytes(live))
    device = plan.fabric.cluster.devices[0].memory_bytes
    held = serving_ledger(plan.ops.spread, plan.placement, keeps, device)
    usable = min(held.capacity[HBM], int(device * settings.gpu_memory_utilization))
    share = draft_share(plan, settings)
    rows = (*(_renamed(row) for row in held.rows if row.bytes), *_draft_rows(held, share), *beside)
    free = usable - sum(row.bytes for row in rows)
    block = settings.block_size * plan.ops.spread.kv_bytes_per_token(precision.kv_cache) * (1 + share)
    found = int(max(free, 0) * settings.free_gpu_memory_fraction / block)
    blocks = settings.num_gpu_blocks_override or found
    cache = MemoryRow(HBM, "KV cache", int(max(blocks, 1) * block), KV_KNOB)
    ledger = MemoryLedger((*rows, cache), {HBM: usable})
    if settings.num_gpu_blocks_override and blocks * block > free >= block:
        raise DoesNotFit(
            f"a KV cache of {blocks:,} blocks takes {show_bytes(cache.bytes)}, weights and buffers leave "
            f"{show_bytes(free)} of {show_bytes(usable)}", where="scheduler.num_gpu_blocks_override",
            way_out=f"at most {int(free / block)}, or more of the memory ({KV_KNOB})",
        )  # fmt: skip
    if found < max(blocks, 1):
        ledger.check()
    if not blocks:
        raise DoesNotFit(
            f"free_gpu_memory_fraction {settings.free_gpu_memory_fraction:g} of {free} bytes holds no block of "
            f"{int(block)} bytes", where="scheduler.free_gpu_memory_fraction", way_out="a larger fraction",
        )  # fmt: skip
    return Memory(ledger, blocks, settings.block_size, block)


def draft_share(plan: StepPlan, settings: Settings) -> float:
    """What a draft module has of the model's layers: weights, and KV of every token."""
    return settings.draft_layers / plan.model.num_layers if settings.num_speculative_tokens else 0.0


def _draft_rows(held: MemoryLedger, share: float) -> tuple[MemoryRow, ...]:
    """Weights of a draft module that is as large as this share of the model."""
    weights = sum(row.bytes for row in held.rows if row.item.endswith("weights"))
    return (MemoryRow(HBM, "draft weights", int(weights * share), "scheduler.draft_layers"),) if share else ()


def _renamed(row: MemoryRow) -> MemoryRow:
    """Buffers grow with the token budget here, not with a step's batch."""
    knob = row.knob.replace("batch.tokens_per_gpu", "scheduler.max_num_batched_tokens")
    return replace(row, knob=knob)
