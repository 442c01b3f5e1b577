"""Scenario: the frozen, hashable description of one run. Each key of the YAML file is a field here, with its unit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from moesim.layout import OPTIMIZERS, Optimizer
from moesim.models import InlineModel
from moesim.routing.sources.columns import LogitKnobs
from moesim.units import Seconds
from moesim.yamlfile import Items, Section

Dtype = Annotated[
    Literal["bf16", "fp8", "fp4"],
    BeforeValidator(lambda name: "fp4" if name in ("nvfp4", "mxfp4") else name),
    WithJsonSchema({"enum": ["bf16", "fp8", "fp4", "nvfp4", "mxfp4"], "type": "string"}),
]
Count = Annotated[int, Field(ge=1, le=10**9)]
Degree = Annotated[int, Field(ge=1, le=64)]
LEAST = 1e-6  # of a rate: what faults may leave of it, beside nothing
LATEST = 1e6  # s: times of faults; clocks count picoseconds in 63 bits


ModelSource = Annotated[
    Annotated[str, Tag("name")] | Annotated[InlineModel, Tag("inline")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "inline"),
]


class BatchSection(Section):
    """What one step works on."""

    phase: Literal["decode", "prefill", "train"] = Field(description="kind of step")
    tokens_per_gpu: Annotated[int, Field(ge=1, le=1 << 22)] = Field(
        description="new tokens on each GPU; in training, of one micro-batch"
    )
    context: Count = Field(description="decode: tokens already cached per request; otherwise the sequence length")
    micro_batches: Annotated[int, Field(ge=1, le=4096)] = Field(
        1, description="training: micro-batches accumulated before the optimizer runs"
    )


class ClusterSection(Section):
    """Which machines."""

    topology: str = Field(description="shipped topology or a YAML file; see `moesim list`")
    nodes: Count | None = Field(None, description="number of nodes; default: as the topology says")
    oversubscription: float | None = Field(None, ge=1, description="leaf to spine, 1 = non-blocking")
    routing: Literal["adaptive", "ecmp", "spray", "minimal", "valiant"] | None = Field(
        None,
        description="adaptive: a leaf's uplinks act as one; ecmp: a hash of ports and queue pair picks the spine; "
        "spray: a message is divided over all spines; a dragonfly's are minimal and valiant (over a "
        "third group that a hash picks)",
    )
    spines: Count | None = Field(None, description="ecmp, spray: spines to pick from")
    queue_pairs: Count | None = Field(None, description="ecmp, valiant: a message is divided over so many")

    @property
    def changes(self) -> dict[str, Any]:
        """What replaces the topology's own: the keys that are given."""
        return self.model_dump(exclude={"topology"}, exclude_none=True)


class ParallelSection(Section):
    """How the model is spread (vLLM's names). The product of tensor and data parallel sizes is the number of GPUs."""

    tensor_parallel_size: Count = Field(1, description="ranks that share the width of attention and dense layers")
    data_parallel_size: Count = Field(1, description="groups of them, each with tokens of its own")
    expert_parallel_size: Count = Field(1, description="ranks with different experts; 1: experts are shared by width")
    expert_tensor_parallel_size: Count | None = Field(
        None, description="ranks that share the width of each expert; default: tensor / expert parallel size, or 1"
    )


class ExpertsSection(Section):
    """Which GPU holds which expert."""

    redundant: int = Field(0, ge=0, description="slots beyond one per expert; a placement file brings its own")
    placement: str = Field(
        "contiguous",
        description="a strategy, planned on earlier tokens (see the Result), or a placement file",
    )


class CommSection(Section):
    """The all-to-all of the expert layers."""

    dispatch: str = Field("nccl", description="all-to-all algorithm; see `moesim list`")
    dispatch_dtype: Dtype = Field(
        "bf16", description="of a token's row on its way to its experts, and of its gradient on that way"
    )
    combine_dtype: Dtype = Field("bf16", description="and on the way back")
    version: str | None = Field(None, description="of the library, e.g. '2025-02'; default: the newest known")
    all_reduce: Literal["nccl", "sglang", "trtllm", "vllm"] | None = Field(
        None, description="whose all-reduce runs inside a node: an engine's own; default: the preset's, or else NCCL's"
    )
    path: Literal["nvlink", "rdma"] | None = Field(
        None, description="low-latency rows for the same node: over NVLink or out of one NIC and in by another"
    )


class PrecisionSection(Section):
    """Dtypes; None takes the model's own."""

    weights: Dtype | None = Field(None, description="of all but the experts")
    experts: Dtype | None = Field(None, description="of the routed and shared experts")
    kv_cache: Dtype | None = Field(None, description="the model's own: bf16, or what its checkpoint was calibrated for")


class OverlapSection(Section):
    """What computes while something else communicates."""

    schedule: str = Field("sequential", description="layer schedule; see `moesim list`")
    shared_expert: bool = Field(True, description="the shared expert runs beside the dispatch")
    degree: int | None = Field(
        None, ge=1, le=64, description="parts that the stretch from dispatch to combine is cut into (tutel)"
    )
    interference: float = Field(
        1.0, ge=1, le=100,
        description="times as long as alone that a GPU computes while a transfer of its own is under way, beside what "
        "SMs cost that it holds: 1, none; transfers are not slowed (assumed)",
    )  # fmt: skip


class StepOverlapSection(OverlapSection):
    """What computes while something else communicates."""

    degree: Degree | Literal["auto"] | None = Field(  # type: ignore[assignment]
        None, description="parts that the stretch from dispatch to combine is cut into (tutel, fsmoe, lina): 1 to 64, "
        "or in training auto: what makes the step shortest with even rows",
    )  # fmt: skip
    degree_backward: Degree | Literal["auto"] | None = Field(
        None, description="the same of the backward pass; default: as many as forward, and auto with degree: auto"
    )
    inter_intra: bool | None = Field(
        None, description="transfers inside nodes have a stream beside that of those between them; default: fsmoe does"
    )


class RoutingSection(Section):
    """Where the routing comes from: trace, sampled or balanced; or a router, over a trace or generated logits."""

    trace: str | None = Field(None, description="recorded trace: shipped name or Parquet file")
    transplant: bool = Field(False, description="carry another model's trace over; the result says so")
    sampled: str | None = Field(None, description="load statistics whose skew a sampler follows (assumed)")
    balanced: bool = Field(False, description="every expert gets equal rows (assumed)")
    router: str | dict[str, Any] | None = Field(
        None, description="a router decides: a name, or {name: ..., its parameters}; see `moesim list`"
    )
    generator: LogitKnobs | None = Field(None, description="knobs of the logits that a router without a trace reads")
    warm_up: int = Field(0, ge=0, le=2000, description="steps that a router which learns has seen before")

    @model_validator(mode="after")
    def _one_source(self) -> RoutingSection:
        given = [name for name in ("trace", "sampled", "balanced", "generator") if getattr(self, name)]
        if len(given) > 1 or not (given or self.router):
            raise ValueError(
                f"give exactly one of trace, sampled, balanced, or a router (given: {', '.join(given) or 'none'})"
            )
        if self.transplant and not self.trace:
            raise ValueError("transplant needs a trace")
        self._check_router(given)
        return self

    def _check_router(self, given: list[str]) -> None:
        if self.router is None and (self.generator or self.warm_up):
            raise ValueError("generator and warm_up are a router's: name one, e.g. router: topk_softmax")
        if self.router is not None and (self.transplant or {"sampled", "balanced"} & set(given)):
            raise ValueError("a router reads the logits of a trace or a generator; others give expert ids only")


class NetworkSection(Section):
    """How exactly the network is played."""

    level: Literal["auto", "port_load", "fluid"] = Field(
        "auto", description="auto: fluid up to 512 GPUs, and where port loads are not valid; loops play port loads"
    )
    window: float | None = Field(
        None, ge=0, le=0.1,
        description="fluid: completions closer than this fraction are merged; default: 0.01 in auto, else 0",
    )  # fmt: skip
    efficiency: float = Field(
        1.0, gt=0, le=1, description="share of their rates that links between nodes reach: RoCE may have 0.25 to 1"
    )
    background: float = Field(0.0, ge=0, lt=1, description="share of what they reach that other jobs' traffic takes")

    @property
    def merged(self) -> float:
        """The window as it is played: 1 % moves a step by about 0.1 % and takes a fifth of the time."""
        if self.window is not None:
            return self.window
        return 0.01 if self.level == "auto" else 0.0

    @property
    def left(self) -> float:
        """Share of their rates that links between nodes have left for this job."""
        return self.efficiency * (1.0 - self.background)


class FaultSection(Section):
    """A link or a rank that is slow or dead for a while. Of a link, what its transfers do when it is dead."""

    at: Seconds = Field(description="after the start of the step")
    link: str | None = Field(
        None,
        description="its name, e.g. gpu3/nic_out; gpu3/nic or node0/nic3 strikes a port both ways, leaf0 or spine2 all "
        "links of a switch",
    )
    rank: int | None = Field(None, ge=0, description="a GPU that computes slower")
    factor: float = Field(0.0, ge=0, le=1, description="share of its rate that is left")
    until: Seconds | None = Field(None, description="when it is repaired; default: never")
    then: Literal["stall", "reroute", "abort"] = Field(
        "stall",
        description="dead link: wait; go over the next GPU's port, other switches or detour; or drop what crosses it",
    )
    detour: Items[str] = Field((), max_length=64, description="reroute: names of the links that stand in, in order")

    @model_validator(mode="after")
    def _one_target(self) -> FaultSection:
        if 0 < self.factor < LEAST:
            raise ValueError(f"factor {self.factor:g} is below {LEAST:g}: write 0, dead")
        if (self.link is None) == (self.rank is None):
            raise ValueError("give either link or rank")
        if self.until is not None and self.until <= self.at:
            raise ValueError("until has to come after at")
        if max(self.at, self.until or 0.0) > LATEST:
            raise ValueError(f"no step lasts more than {LATEST:g} s; leave until out where nothing is repaired")
        if self.then != "stall" and (self.link is None or self.factor > 0):
            raise ValueError(f"then: {self.then} is for a dead link, factor: 0")
        if self.detour and self.then != "reroute":
            raise ValueError("detour needs then: reroute")
        return self


class OptimizerKeys(Section):
    """How weights are updated."""

    optimizer: Literal["adam", "momentum", "sgd", "adafactor", "muon"] = Field(
        "adam", description="what is kept of each parameter, sharded over equal ranks, and moved by its update; muon: "
        "matrices are gathered whole and made orthogonal, embedding and output head have adam",
    )  # fmt: skip
    master: bool = Field(True, description="fp32 copies of the bf16 parameters")

    @property
    def updates(self) -> Optimizer:
        """What they say."""
        return replace(OPTIMIZERS[self.optimizer], master=self.master)


class TrainingSection(OptimizerKeys):
    """What the backward pass computes again, and how weights are updated."""

    recompute: Items[Literal["core_attn", "moe"]] = Field((), description="Megatron's --recompute-modules")


class CostsSection(Section):
    """A kernel profile and which of its kernel sets runs; see `calibration/README.md`."""

    profile: str = Field("auto", description="kernel profile, shipped name or YAML file; auto: the device's")
    kernels: str | None = Field(
        None, description="kernel set, e.g. sglang, trtllm, vllm; default: by the experts' dtype"
    )


class PublishedSection(Section):
    """A measured throughput of this configuration, printed beside the prediction; nothing is fitted to it."""

    tokens_per_s_per_node: float = Field(gt=0, description="measured, of one node")
    source: str = Field(description="where it was published")
    missing: Items[str] = Field((), description="mechanisms of the measured system that this run does not have")


def _format_version(value: int) -> int:
    if value != 1:
        raise ValueError(f"format version {value} is not known; this moesim reads version 1")
    return value


class Setup(Section):
    """What every kind of run says: the model, the machines, and how one is spread over the other."""

    moesim: Annotated[int, AfterValidator(_format_version)] = Field(1, description="format version")
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="shown in results")
    description: str = Field("", description="what it is, for people")
    model: ModelSource = Field(description="shipped model name, the path of a config.json, or an inline description")
    cluster: ClusterSection
    parallel: ParallelSection = ParallelSection()
    experts: ExpertsSection = ExpertsSection()
    comm: CommSection = CommSection()
    precision: PrecisionSection = PrecisionSection()
    overlap: OverlapSection = OverlapSection()
    routing: RoutingSection | None = Field(None, description="which experts tokens take; a model without has none")
    network: NetworkSection = NetworkSection()
    costs: str | CostsSection = Field(
        "auto", description="auto: the device's profile; or a profile, `roofline`, {profile: NAME, kernels: SET}"
    )

    @property
    def digest(self) -> str:
        """sha256 of what the result depends on: all keys but name, description and published figures. Defaults are left
        out, so that a new key does not change the hash of old scenarios.
        """
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """The plain data that `digest` hashes."""
        return self.model_dump(mode="json", exclude={"name", "description", "published"}, exclude_defaults=True)


class Scenario(Setup):
    """One run of one step. Two scenarios that mean the same have the same hash, however their files are ordered."""

    mode: Literal["step"] = Field("step", description="`moesim init --like qwen3-serve` shows mode: serve")
    batch: BatchSection
    overlap: StepOverlapSection = StepOverlapSection()
    faults: Items[FaultSection] = Field((), max_length=256, description="slow or dead links and ranks, with a schedule")
    training: TrainingSection = TrainingSection()
    published: PublishedSection | None = Field(
        None, description="a measured throughput of this configuration, printed beside the prediction, never fitted to"
    )

    @model_validator(mode="after")
    def _faults_are_played(self) -> Scenario:
        if self.faults and self.network.level == "port_load":
            raise ValueError("faults need the fluid network: network.level auto or fluid")
        return self

    @model_validator(mode="after")
    def _training_alone(self) -> Scenario:
        if self.batch.phase != "train" and (self.batch.micro_batches > 1 or self.training != TrainingSection()):
            raise ValueError("batch.micro_batches and training are of training only: batch.phase: train")
        return self
