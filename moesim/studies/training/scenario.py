"""TrainScenario: one optimizer step of a job whose layers are cut into pipeline stages."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from moesim.errors import BadInput
from moesim.routing.routers.capacity import Factor
from moesim.routing.sources.in_places import Limit
from moesim.studies.prices import PricesSection
from moesim.studies.scenario import CommSection, Count, OptimizerKeys, ParallelSection, Setup
from moesim.studies.training.flags import BATCH, DTYPE, PIPELINE, TRAINING, named, read_parallel, valued
from moesim.studies.training.long_run import RunSection
from moesim.yamlfile import Items, Section


class TrainBatch(Section):
    """What one optimizer step works on."""

    sequence_length: int = Field(ge=1, le=1 << 22, description="tokens of a sequence")
    micro_batch_size: int = Field(1, ge=1, le=4096, description="sequences of a micro-batch on a replica")
    micro_batches: int = Field(1, ge=1, le=1 << 15, description="of a step, on each replica")
    global_batch_size: Count | None = Field(
        None, description="sequences of a step on all replicas, in place of micro_batches"
    )

    @model_validator(mode="before")
    @classmethod
    def _flags(cls, data: Any) -> Any:
        return named(data, BATCH, "batch")

    def model_post_init(self, context: Any) -> None:
        """Raises BadInput where both are given."""
        if self.global_batch_size and "micro_batches" in self.model_fields_set:
            raise BadInput("says micro_batches, which is there already", where="batch.global_batch_size",
                           way_out="one of them")  # fmt: skip


class TrainParallel(ParallelSection):
    """Degrees, under Megatron's or torchtitan's names too (studies/training/flags.py); their product with
    data_parallel_size is the number of GPUs.
    """

    plan: Literal["auto"] | None = Field(
        None, description="auto: of tensor, pipeline, data and expert degrees, those that are not given are chosen: "
        "the plan that fits on all of the cluster with the shortest simulated step",
    )  # fmt: skip
    context_parallel_size: Count = Field(1, description="ranks that share the tokens of a sequence")
    pipeline_parallel_size: Count = Field(1, description="ranks that share the layers")
    virtual_pipeline_size: int = Field(1, ge=1, le=64, description="stages on each rank (interleaved)")
    stage_layers: Items[Count] = Field((), description="layers of each stage; default: as many in each")
    zero_stage: int = Field(
        1, ge=0, le=3,
        description="what data-parallel ranks keep in parts: 0: nothing (DDP); 1: optimizer states (Megatron's "
        "distributed optimizer); 2: gradients too; 3: parameters too (FSDP)",
    )  # fmt: skip
    data_parallel_shard_size: Count | None = Field(
        None, description="data-parallel ranks that share those parts; the others are replicas (HSDP); default: all"
    )

    @model_validator(mode="before")
    @classmethod
    def _flags(cls, data: Any) -> Any:
        return read_parallel(data)


class PipelineSection(Section):
    """In which order a rank does the passes of its micro-batches."""

    schedule: str = Field(
        "1f1b", description="pipeline; see `moesim list pipelines`; or FILE.csv, an order as PyTorch's runtime reads "
        "it (torchtitan's pipeline_parallel_schedule_csv)",
    )  # fmt: skip
    hide_alltoall: bool = Field(
        False,
        description="all-to-alls beside the compute of another micro-batch; dualpipe does in its overlapped slots",
    )

    @model_validator(mode="before")
    @classmethod
    def _flags(cls, data: Any) -> Any:
        return named(data, PIPELINE, "pipeline")


class TrainingSection(OptimizerKeys):
    """What the backward pass computes again, how gradients are kept and moved, and how weights are updated."""

    recompute: Items[Literal["core_attn", "moe", "mla_up_proj"]] = Field(
        (), description="Megatron's --recompute-modules; moe: transfers included"
    )
    gradients: Literal["fp32", "bf16"] = Field(
        "fp32", description="of their sums, which ranks reduce; bf16: Megatron's --grad-reduce-in-bf16"
    )
    overlap_grad_reduce: bool = Field(
        False, description="gradients of a layer are reduced while the backward pass computes the next one"
    )
    overlap_param_gather: bool = Field(
        False, description="parameters of a layer are gathered while a pass computes the one before it"
    )

    capacity_factor: Factor | None = Field(
        None, description="places of an expert for the rows of one GPU's micro-batch, over an even share of them; the "
        "others are dropped (Megatron's --moe-expert-capacity-factor); default: none are",
    )  # fmt: skip
    pad_to_capacity: bool = Field(False, description="empty places are sent and computed too")

    def model_post_init(self, context: Any) -> None:
        """Raises BadInput for places that nothing says the number of."""
        if self.pad_to_capacity and self.capacity_factor is None:
            raise BadInput("there are no places to fill", where="training.pad_to_capacity",
                           way_out="capacity_factor: 1.25, or leave it out")  # fmt: skip

    @property
    def limit(self) -> Limit | None:
        """Places of experts."""
        return Limit(self.capacity_factor, self.pad_to_capacity) if self.capacity_factor else None

    @model_validator(mode="before")
    @classmethod
    def _flags(cls, data: Any) -> Any:
        return valued(named(data, TRAINING, "training"), DTYPE, "gradients", "training")


class TrainScenario(Setup):
    """A training job."""

    silent: ClassVar[tuple[str, ...]] = ("experts", "overlap", "network")  # sections of a single step alone
    mode: Literal["train"] = Field(description="a step of training in pipelines")
    batch: TrainBatch
    parallel: TrainParallel = TrainParallel()
    pipeline: PipelineSection = PipelineSection()
    training: TrainingSection = TrainingSection()
    run: RunSection | None = Field(None, description="many steps in a row")
    prices: PricesSection | None = Field(None, description="metrics of cost and energy per million tokens")

    def model_post_init(self, context: Any) -> None:
        """Raises BadInput for keys that nothing listens to."""
        if self.prices:
            self.prices.check()
        for key in self.silent:
            if key in self.model_fields_set:
                raise BadInput("nothing to act on in mode: train", where=key, way_out="leave it out, or mode: step")
        if self.run:
            if self.run.routing_every and (self.routing is None or self.routing.balanced):
                raise BadInput("even rows stay even", where="run.routing_every", way_out="leave it out, or routing")
            self.run.check()
        for key, default in CommSection().model_dump().items():
            if key not in ("dispatch", "dispatch_dtype", "combine_dtype") and getattr(self.comm, key) != default:
                raise BadInput("nothing to act on in mode: train", where=f"comm.{key}", way_out="leave it out")
        if self.precision.kv_cache:
            raise BadInput("training has no cache", where="precision.kv_cache", way_out="leave it out")
        if self.precision.experts not in (None, self.precision.weights):
            way_out = f"precision: {{weights: {self.precision.experts}}}"
            raise BadInput("experts have the weights' precision in mode: train", where="precision.experts",
                           way_out=way_out)  # fmt: skip
        if self.parallel.plan and not self.batch.global_batch_size:
            raise BadInput("needs batch.global_batch_size: plans differ in their replicas", where="parallel.plan",
                           way_out="batch: {global_batch_size: ...} in place of micro_batches")  # fmt: skip
        if self.parallel.zero_stage == 0:
            for key in ("parallel.data_parallel_shard_size", "training.overlap_param_gather"):
                section, name = key.split(".")
                if getattr(getattr(self, section), name):
                    raise BadInput("nothing is kept in parts with zero_stage 0", where=key,
                                   way_out="leave it out, or parallel.zero_stage: 1, 2 or 3")  # fmt: skip
        if self.pipeline.hide_alltoall and self.pipeline.schedule.startswith("dualpipe"):
            raise BadInput("does so in its overlapped slots by itself", where="pipeline.hide_alltoall",
                           way_out="leave it out")  # fmt: skip

        known = () if self.parallel.plan else (self.parallel.expert_parallel_size,)
        if self.pipeline.hide_alltoall and 1 in (self.batch.global_batch_size or self.batch.micro_batches, *known):
            what = "needs an all-to-all, and a second micro-batch beside whose compute it runs"
            raise BadInput(what, where="pipeline.hide_alltoall", way_out="leave it out")

    @property
    def dtype(self) -> str:
        """Of GEMMs."""
        return self.precision.weights or "bf16"
