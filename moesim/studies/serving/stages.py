"""Stages, sealed: what each takes of a request or of a step's tokens, and what it holds in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.costs.profile import ENCODER, HALF
from moesim.errors import BadInput, placed
from moesim.layout import HBM, MemoryLedger, MemoryRow, Residency, Rows, serving_ledger
from moesim.models import Attention, InlineModel, MoEModel, load_model
from moesim.serving import Settings
from moesim.serving.stages import Stage
from moesim.step import Batch, CostLog, Phase, StepPlan
from moesim.step.pace import Pace
from moesim.studies.basis import price_notes
from moesim.studies.build import Draft, draft
from moesim.studies.load import Loaded
from moesim.studies.scenario import BatchSection, CommSection, ParallelSection, Scenario
from moesim.studies.serving.load import ServeLoaded
from moesim.studies.serving.scenario import ServeScenario
from moesim.studies.serving.stage_sections import StageSection
from moesim.units import to_ps


@dataclass(frozen=True)
class StageLoaded(Loaded):
    """The step scenario of a stage's model: its keys are the stage's, and nothing of experts stands there."""

    role: str = ""
    bidirectional: bool = False

    def where(self, key: str) -> str:
        """See Loaded."""
        return super().where(f"{self.role}.{key}" if key.startswith("model") else self.role)

    @property
    def given(self) -> dict[str, Any]:
        """See Loaded."""
        return {}

    def played(self, model: MoEModel) -> MoEModel:
        """See Loaded."""
        return model.in_full if self.bidirectional else model


@dataclass(frozen=True)
class BuiltStage:
    """rows: of the ledger of the fullest of its GPUs, or of the replica's; gpus: of its own."""

    stage: Stage
    rows: tuple[MemoryRow, ...]
    gpus: int
    drafted: Draft | None = None
    assumes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of its prices, after they were asked for."""
        if not self.drafted:
            return ()
        plan = self.drafted.plan
        prices = price_notes(self.drafted.log, plan.ops.costs, plan.fabric.cluster.devices[0].name)
        said = (*self.assumes, *_attends(plan.model, self.drafted.log), *plan.model.approximations, *prices)
        return tuple(f"stage {self.stage.name}: {note}" for note in said)


def build_stages(loaded: ServeLoaded, settings: Settings, seed: int) -> tuple[BuiltStage, ...]:
    """Check and seal. Raises BadInput, or DoesNotFit where a stage's own GPUs are too small."""
    stages = loaded.scenario.stages
    whole = any(one.model is not None and one.where == "before" and not one.input_length for one in stages)
    longest = int(loaded.scenario.requests.draw(seed)[0].prompt.max(initial=1)) if whole else 1
    return tuple(_built(loaded, settings, one, longest, seed) for one in stages)


def _built(loaded: ServeLoaded, settings: Settings, section: StageSection, longest: int, seed: int) -> BuiltStage:
    if section.model is None:
        assert section.seconds is not None
        ticks = int(to_ps(section.seconds)) * section.passes
        return BuiltStage(Stage(section.name, section.where, section.servers, lambda tokens: ticks), (), 0)
    names = [one["name"] for one in loaded.document.data["stages"]]
    role = f"stages[{names.index(section.name)}]"  # a pool has some of them
    made = _drafted(loaded, section, role, seed)
    plan = replace(made.plan, host_seconds=settings.host_time)
    rows = _rows(plan, section, longest, role)
    if section.own:
        with placed(loaded.where(role)):
            MemoryLedger(rows, {HBM: int(_device(plan) * settings.gpu_memory_utilization)}).check()
    stage = Stage(section.name, section.where, section.servers, _priced(Pace(plan), section))
    return BuiltStage(stage, rows, section.gpus, replace(made, plan=plan), assumptions(section, plan.model))


def _drafted(loaded: ServeLoaded, section: StageSection, role: str, seed: int) -> Draft:
    """A plan of the stage's model alone, on as many GPUs as share it."""
    assert section.model is not None
    with placed(loaded.where(f"{role}.model")):
        model = load_model(section.model, None)
        if model.routed:
            raise BadInput(f"{model.name} has experts, which stages do not play", way_out="a dense model, or seconds")
    scenario = loaded.scenario
    ways = section.tensor_parallel_size if section.own else scenario.parallel.tensor_parallel_size
    if uneven := next(filter(None, (mixer.uneven(ways) for mixer in model.mixers)), ""):
        where = loaded.where(f"{role}.tensor_parallel_size" if section.own else role)
        raise BadInput(f"{uneven} of {model.name} do not divide over {ways} GPUs", where=where, way_out="a divisor")
    step, full = _step(scenario, section, section.model, ways), section.bidirectional
    return draft(StageLoaded(loaded.document, loaded.overridden, step, role=role, bidirectional=full), seed)


def _step(scenario: ServeScenario, section: StageSection, model: str | InlineModel, ways: int) -> Scenario:
    """Of the stage's model; its batch stands for none that is played."""
    return Scenario(
        name=section.name, model=model, cluster=scenario.cluster, network=scenario.network,
        costs=scenario.costs, parallel=ParallelSection(tensor_parallel_size=ways),
        comm=CommSection.model_validate({"all_reduce": scenario.all_reduce if ways > 1 else None}),
        batch=BatchSection(phase="decode", tokens_per_gpu=1, context=1),
    )  # fmt: skip


def _rows(plan: StepPlan, section: StageSection, longest: int, role: str) -> tuple[MemoryRow, ...]:
    """Weights of all that are resident, and what one request leaves behind: activations, and KV where it is decoded.
    longest: tokens of a prompt.
    """
    precision = plan.ops.precision
    live = 1 if section.where == "per_token" else section.input_length or longest
    cached = 0 if section.where == "per_token" or section.bidirectional else live + section.output_length
    dtypes = (precision.weights, precision.experts, precision.kv_cache)
    keeps = Residency(*dtypes, 1, cached, live, Rows(0, 0))
    ledger = serving_ledger(plan.ops.spread, plan.placement, keeps, _device(plan))
    weights = sum(row.bytes for row in ledger.rows if row.item.endswith("weights"))
    rest = sum(row.bytes for row in ledger.rows) - weights
    return (
        MemoryRow(HBM, f"stage {section.name} weights", weights * section.resident, f"{role}.model"),
        MemoryRow(HBM, f"stage {section.name} buffers", rest, f"{role}.input_length"),
    )


def _device(plan: StepPlan) -> int:
    return plan.fabric.cluster.devices[0].memory_bytes


def assumptions(section: StageSection, model: MoEModel) -> tuple[str, ...]:
    """What its price leaves out."""
    if section.where == "per_token":
        return ("tokens see nothing but themselves in it, all of a step at once: assumed",)
    if section.output_length:
        return ("one request at a time, its prompt in one piece: assumed",)
    causal = section.bidirectional and any(isinstance(one, Attention) and not one.full for one in model.mixers)
    half = ", and each attends to half of the others in layers with windows or latent attention" if causal else ""
    return (f"one request at a time, its tokens in one piece{half}: assumed",)


def _attends(model: MoEModel, log: CostLog) -> Iterator[str]:
    """By which kernels tokens attend to all others, after they were asked for."""
    if not any(isinstance(one, Attention) and one.full for one in model.mixers):
        return
    if kernel := log.kernels.get(ENCODER):
        yield f"tokens attend to all others by {kernel}"
    if any(kernel.endswith(HALF) for kernel in log.kernels.values()):
        yield f"{HALF}: assumed"


def _priced(pace: Pace, section: StageSection) -> Callable[[int], int]:
    """ps of a number of tokens: of a request's prompt, or of a step. Each number is asked once."""
    known: dict[int, int] = {}

    def ps(tokens: int) -> int:
        if tokens not in known:
            each = _alike(pace, tokens) if section.where == "per_token" else _request(pace, section, tokens)
            known[tokens] = each * section.passes
        return known[tokens]

    return ps


def _request(pace: Pace, section: StageSection, prompt: int) -> int:
    """The pass over what it reads, and one for each further token that it writes. Where each of q tokens attends to all
    q in layers that no kernel in full is known of, there are as many pairs as of q tokens after q / 2.
    """
    reads, writes = section.input_length or prompt, section.output_length
    before = reads // 2 if section.bidirectional else 0
    first = pace.ps(_row(pace, reads, before, Phase.PREFILL, emits=writes > 0))
    return first + sum(pace.ps(_row(pace, 1, reads + number, Phase.DECODE)) for number in range(writes - 1))


def _row(pace: Pace, query: int, context: int, phase: Phase, *, emits: bool = True) -> Batch:
    return Batch.of(pace.plan.layout.world, [0], 0, query, context, phase, emits)


def _alike(pace: Pace, tokens: int) -> int:
    """So many tokens that see themselves alone, spread over the ranks."""
    ranks = pace.plan.layout.world
    return pace.ps(Batch.of(ranks, np.sort(np.arange(tokens) % ranks), 0, 1, 0, Phase.DECODE, False))


def stage_gpus(stages: Sequence[BuiltStage]) -> int:
    """Of their own, all together."""
    return sum(one.gpus for one in stages)
