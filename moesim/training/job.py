"""Job: one training step as Megatron-LM would be told it, sealed; plan and micro-batch of each of its stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from moesim.costs import CostModel
from moesim.errors import BadInput
from moesim.hardware import Cluster
from moesim.layout import OPTIMIZERS, Layout, Placement, Spread
from moesim.models import DTYPE_BYTES, MoEModel
from moesim.network import Fabric, all_to_all
from moesim.routing import Balanced, NoExperts, RoutingSource
from moesim.schedules.pipelines import Pipeline, find_pipeline
from moesim.step import Batch, CostLog, Dispatch, LayerOps, Phase, Precision, StepPlan
from moesim.training.stages import Stage, StageSchedule, even_stages

ACTIVATION = "bf16"


@dataclass(frozen=True)
class Job:
    """A step of `micro_batches` micro-batches of `sequences` sequences of `sequence` tokens, on every replica.
    Degrees: tensor (with sequence parallelism), context, pipeline, expert and expert-tensor; the rest of the
    `world` ranks are data-parallel. Experts get even rows (forced balance). attention: dtype of its core; overlap:
    all-to-alls run beside the compute of another micro-batch, as far as there is some. Raises BadInput.
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
    attention: str = "bf16"
    overlap: bool = False
    log: CostLog = field(default_factory=CostLog)

    def __post_init__(self) -> None:
        if self.order.startswith("dualpipe"):
            what = f"a step with {self.order} is not played yet: its ranks hold stages from both ends"
            raise BadInput(what, way_out="1f1b, gpipe, interleaved, zb-h1 or zb-h2")
        each = self.tensor * self.context * self.pipeline
        if self.world % each:
            raise BadInput(
                f"tensor {self.tensor} x context {self.context} x pipeline {self.pipeline} = {each} does not divide "
                f"{self.world} GPUs",
                way_out=f"{-(-self.world // each) * each} GPUs",
            )  # fmt: skip
        if self.sequence % (self.tensor * self.context):
            raise BadInput(
                f"{self.sequence} tokens do not divide over tensor {self.tensor} x context {self.context}",
                way_out=f"{-(-self.sequence // self._slices) * self._slices} tokens",
            )  # fmt: skip

    @property
    def _slices(self) -> int:
        return self.tensor * self.context

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

    @cached_property
    def layout(self) -> Layout:
        """Of the ranks of one stage: consecutive ones, as Megatron's order tp-cp-ep-dp-pp has them."""
        return Layout(self.world // self.pipeline, self.tensor, self.expert, self.expert_tensor)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All of them."""
        return even_stages(self.model.num_layers, self.schedule.stages)

    @cached_property
    def schedule(self) -> Pipeline:
        """The order of passes; `chunks` stages on each rank."""
        return find_pipeline(self.order)(self.pipeline, self.micro_batches, self.chunks if self.chunks > 1 else None)

    @cached_property
    def fabric(self) -> Fabric:
        """Links with what kernels reach of them."""
        return Fabric.of(self.cluster, self.costs.communication, all_to_all.find(self.dispatch))

    def spread(self, stage: Stage) -> Spread:
        """How the tensors of a stage lie."""
        return Spread.of(stage.model(self.model), self.layout, training=True)

    def plan(self, stage: Stage) -> StepPlan:
        """A step of the stage by itself."""
        model, algorithm = stage.model(self.model), all_to_all.find(self.dispatch)
        sms = self.cluster.devices[0].sms
        held = max(self.fabric.communication[kernel].sms for kernel in algorithm.all_kernels())
        row = round(model.row_width * DTYPE_BYTES[ACTIVATION])
        routing: RoutingSource = Balanced(model, 0) if model.routed else NoExperts()
        return StepPlan(
            model=model,
            layout=self.layout,
            placement=self.placement(model),
            routing=routing,
            ops=LayerOps(
                model,
                self.costs,
                Precision(self.precision, self.precision, self.attention),
                self.spread(stage),
                self.log,
            ),
            fabric=self.fabric,
            dispatch=Dispatch(algorithm, row, row, sms / (sms - held)),
            schedule=StageSchedule(stage),
            optimizer=OPTIMIZERS["adam"],
            gradient_bytes=4,
        )

    def placement(self, model: MoEModel) -> Placement:
        """Experts in order."""
        if not model.routed:
            return Placement.none(self.expert)
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
