"""Job: one training step as Megatron-LM would be told it, sealed; plan and micro-batch of each of its stages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from moesim.costs import CostModel
from moesim.errors import BadInput
from moesim.hardware import Cluster
from moesim.layout import OPTIMIZERS, Layout, Optimizer, Placement, Spread
from moesim.layout.shards import SIZE as SHARD_SIZE
from moesim.layout.shards import WEIGHTS
from moesim.models import MoEModel, row_bytes
from moesim.network import Fabric, Group, all_to_all
from moesim.routing import Balanced, NoExperts, RoutingSource
from moesim.routing.sources.in_places import InPlaces, Limit
from moesim.schedules.pipelines import Pipeline, find_pipeline
from moesim.step import Batch, CostLog, Dispatch, LayerOps, Phase, Precision, StepPlan, slowdown
from moesim.step.context import ContextRing
from moesim.training.stages import Stage, StageSchedule, even_stages, listed_stages


@dataclass(frozen=True)
class Job:
    """A step of `micro_batches` micro-batches of `sequences` sequences of `sequence` tokens, on every replica.
    Degrees: tensor (with sequence parallelism), context, pipeline, expert and expert-tensor; the rest of the
    `world` ranks are data-parallel. Experts get even rows (forced balance). dispatch_dtype, combine_dtype: of rows on
    their way to experts and back, in the backward pass of their gradients; attention: dtype of its core; overlap:
    all-to-alls run beside the compute of another micro-batch, as far as there is some; stage_layers: of each stage,
    where they are not even. DualPipe's ranks hold two stages each, and hide all-to-alls in the slots that they overlap.
    zero, shard: stage of ZeRO and data-parallel ranks of a shard group, all by default (layout/shards.py);
    reduce_beside, gather_beside: their collectives run beside compute; limit: places of experts; placed: where
    experts of all layers are, in order by default. Raises BadInput.
    """

    model: MoEModel
    cluster: Cluster
    costs: CostModel
    world: int
    micro_batches: int
    sequence: int
    sequences: int = 1
    tensor: int = 1
    context: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int = 1
    order: str = "1f1b"
    chunks: int = 1
    precision: str = "bf16"
    dispatch: str = "nccl"
    dispatch_dtype: str = "bf16"
    combine_dtype: str = "bf16"
    attention: str = "bf16"
    overlap: bool = False
    stage_layers: tuple[int, ...] = ()
    recompute: frozenset[str] = frozenset()
    zero: int = 1
    shard: int | None = None
    reduce_beside: bool = False
    gather_beside: bool = False
    gradient_bytes: int = 4
    optimizer: Optimizer = OPTIMIZERS["adam"]
    limit: Limit | None = None
    placed: Placement | None = None
    log: CostLog = field(default_factory=CostLog)

    def __post_init__(self) -> None:
        each = self.tensor * self.context * self.pipeline
        if self.world % each:
            raise BadInput(
                f"tensor {self.tensor} x context {self.context} x pipeline {self.pipeline} = {each} does not divide "
                f"{self.world} GPUs",
                way_out=f"{-(-self.world // each) * each} GPUs",
            )  # fmt: skip
        if self.shard and self.data % self.shard:
            raise BadInput(f"{self.shard} does not divide {self.data} data-parallel ranks", where=SHARD_SIZE,
                           way_out=f"a divisor of {self.data}")  # fmt: skip
        if self.optimizer.orthogonal and self.zero >= WEIGHTS:
            what = f"{self.optimizer.name} needs whole matrices, and all ranks have parts of each with zero_stage 3"
            raise BadInput(what, where="training.optimizer", way_out="parallel.zero_stage: 1 or 2, or adam")
        if self.sequence % self._grain:
            two = ", two slices of a sequence on each context rank" if self.context > 1 else ""
            raise BadInput(
                f"{self.sequence} tokens do not divide over tensor {self.tensor} x context {self.context}{two}",
                way_out=f"{-(-self.sequence // self._grain) * self._grain} tokens",
            )  # fmt: skip

    @property
    def _slices(self) -> int:
        return self.tensor * self.context

    @property
    def _grain(self) -> int:
        """Tokens of a sequence are a multiple. Context-parallel ranks have two slices each, one from either end, so
        that causal attention is equal work (Megatron-LM's --seq-length: a multiple of 2 x context).
        """
        return math.lcm(self._slices, 2 * self.context if self.context > 1 else 1)

    @property
    def data(self) -> int:
        """Data-parallel replicas."""
        return self.world // (self._slices * self.pipeline)

    @property
    def tokens(self) -> int:
        """Of a whole step."""
        return self.data * self.micro_batches * self.sequences * self.sequence

    @property
    def tokens_here(self) -> int:
        """Of a micro-batch, in a rank's slice of the residual stream."""
        return self.sequences * self.sequence // self._slices

    @property
    def rows_here(self) -> int:
        """Of a micro-batch in a layer with experts, that a rank sends and receives with even rows, padding included."""
        chosen = self.tokens_here * self.model.top_k
        return self.limit.taken(chosen, self.model.num_experts) if self.limit else chosen

    @property
    def dispatch_row_bytes(self) -> int:
        """Of a token's row on its way to an expert, and of its gradient on that way."""
        return row_bytes(self.model.row_width, self.dispatch_dtype)

    @cached_property
    def layout(self) -> Layout:
        """Of the ranks of one stage: consecutive ones, as Megatron's order tp-cp-ep-dp-pp has them."""
        return Layout(self.world // self.pipeline, self.tensor, self.expert, self.expert_tensor)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All of them."""
        layers, stages = self.model.num_layers, self.schedule.stages
        return listed_stages(layers, stages, self.stage_layers) if self.stage_layers else even_stages(layers, stages)

    def stages_of(self, rank: int) -> list[Stage]:
        """Those that rank `rank` of the pipeline holds: micro-batches from the other end may find others there."""
        ends = (0, self.micro_batches - 1)
        return [one for one in self.stages if any(self.schedule.rank_of(end, one.number) == rank for end in ends)]

    def passed(self, rank: int) -> list[tuple[Stage, int]]:
        """Those stages, each with the micro-batches that pass it there: half where they come from both ends."""
        micro = range(self.micro_batches)
        return [
            (stage, sum(self.schedule.rank_of(one, stage.number) == rank for one in micro))
            for stage in self.stages_of(rank)
        ]

    @cached_property
    def schedule(self) -> Pipeline:
        """The order of passes; `chunks` stages on each rank."""
        return find_pipeline(self.order)(self.pipeline, self.micro_batches, self.chunks if self.chunks > 1 else None)

    @property
    def overlaps(self) -> bool:
        """Whether some slots are two passes at once."""
        return any(len(slot) > 1 for order in self.schedule.orders for slot in order)

    @cached_property
    def fabric(self) -> Fabric:
        """Links with what kernels reach of them."""
        return Fabric.of(self.cluster, self.costs.communication, all_to_all.find(self.dispatch), self._expert_group)

    @cached_property
    def meets(self) -> bool:
        """Whether bytes of several GPUs pass one port, or links that are none of theirs: port loads know when a GPU's
        own bytes have landed, not what else has to pass before them.
        """
        if self.cluster.collides:
            return True
        gpu = np.arange(self.cluster.num_devices, dtype=np.int32)
        port = self.fabric.port_out(gpu, np.roll(gpu, -self.cluster.gpus_per_node))
        return len(np.unique(port[port >= 0])) < int((port >= 0).sum())

    @cached_property
    def _expert_group(self) -> Group:
        """One of those that exchange rows."""
        return Group(self.cluster, self.layout.expert_groups()[0])

    @cached_property
    def _balanced(self) -> RoutingSource:
        """Of any layers: it walks through all alike. Even rows have places wherever there are as many; `Balanced` is
        not even to the row, and what it has more of at some expert is not dropped.
        """
        even, limit = Balanced(self.model, 0), self.limit
        lacking = self.rows_here < self.tokens_here * self.model.top_k
        return InPlaces(even, limit) if limit and (limit.pad or lacking) else even

    def spread(self, stage: Stage) -> Spread:
        """How the tensors of a stage lie."""
        return Spread.of(stage.model(self.model), self.layout, training=True)

    def plan(self, stage: Stage) -> StepPlan:
        """A step of the stage by itself."""
        model, algorithm = stage.model(self.model), all_to_all.find(self.dispatch)
        sms = self.cluster.devices[0].sms
        used = algorithm.kernels_in(self._expert_group)
        held = max((self.fabric.communication[kernel].sms for kernel in used), default=0)
        routing: RoutingSource = self._balanced if model.routed else NoExperts()
        return StepPlan(
            model=model,
            layout=self.layout,
            placement=self.placement(model, self.moe_layers_of(stage)),
            routing=routing,
            ops=LayerOps(
                model,
                self.costs,
                Precision(self.precision, self.precision, self.attention),
                self.spread(stage),
                self.log,
            ),
            fabric=self.fabric,
            dispatch=Dispatch(
                algorithm,
                self.dispatch_row_bytes,
                row_bytes(model.row_width, self.combine_dtype),
                slowdown(algorithm, sms, held),
                algorithm.meets,
            ),
            schedule=StageSchedule(stage),
            optimizer=self.optimizer,
            gradient_bytes=self.gradient_bytes,
            zero=self.zero,
            shard=self.shard and self.shard * self.context,
            elsewhere=self._elsewhere(stage),
            recompute=self.recompute,
            context=self._context_ring,
        )

    @cached_property
    def _context_ring(self) -> ContextRing | None:
        """Of the first rings, as many as there are whole ones in whole nodes."""
        if self.context == 1:
            return None
        whole = math.lcm(self._slices, self.cluster.gpus_per_node)
        ranks = min(whole, self.layout.world // self._slices * self._slices)
        group = Group(self.cluster, np.arange(ranks, dtype=np.int32))
        return ContextRing(self.context, self.tensor, group, self.fabric)

    def island(self, stage: Stage) -> StepPlan:
        """The same of the ranks that hold all experts together, which know nothing of those that hold the same."""
        one = self.layout
        alone = Layout(one.island, one.tensor_parallel, one.expert_parallel, one.expert_tensor_parallel)
        return replace(self.plan(stage), layout=alone, zero=1, shard=None)

    def _elsewhere(self, stage: Stage) -> int:
        """Parameters of the vocabulary's tables that other stages hold."""
        tied = self.model.tie_embeddings
        return (2 - tied - stage.tables(tied)) * self.spread(stage).head_gemm().parameters

    def moe_layers_of(self, stage: Stage) -> range:
        """Those of a stage, among all layers with experts."""
        first = sum(layer < stage.first for layer in self.model.moe_layers)
        return range(first, first + len(stage.model(self.model).moe_layers))

    def placement(self, model: MoEModel, layers: range | None = None) -> Placement:
        """Of a model of these layers, by default of all."""
        if not model.routed:
            return Placement.none(self.expert)
        if self.placed:
            return self.placed if layers is None else self.placed.of_layers(np.array(layers, dtype=np.int64))
        return Placement.contiguous(len(model.moe_layers), model.num_experts, self.expert)

    def batch(self, ranks: int) -> Batch:
        """One micro-batch on so many ranks of a stage. Each rank has its slice of every sequence as a row whose queries
        see on average what those of the whole sequence do: with load-balanced context parallelism all slices cost the
        same.
        """
        query = self.sequence // self._slices
        rows = np.repeat(np.arange(ranks), self.sequences)
        earlier = (self.sequence - query) // 2
        made = Batch.of(ranks, rows, np.arange(len(rows)), query, earlier, Phase.PREFILL)
        return made.for_training()
