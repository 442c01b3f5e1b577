"""`run_training`: one scenario -> TrainResult."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from moesim.layout import HBM, MemoryLedger
from moesim.layout.shards import GRADIENTS, WEIGHTS
from moesim.models import MoEModel
from moesim.routing.sources.sequences import Sequences
from moesim.step.whole import NOTE as MATRICES
from moesim.studies.basis import borrowed, price_notes
from moesim.studies.load import Named, Overrides
from moesim.studies.prices import PAID
from moesim.studies.result import Findings, Metric
from moesim.studies.training.job import job_of
from moesim.studies.training.load import TrainLoaded, load_training
from moesim.studies.training.long_run import Drawn, run_told
from moesim.studies.training.plan import chosen, planned
from moesim.studies.training.tokens import are_even, tokens_of
from moesim.studies.training.told import Done, Told, even_told, routed_told
from moesim.training import Job, rank_memory, routed_step
from moesim.training.memory import checkpoint_bytes, restored_bytes
from moesim.training.rebalanced import Look, rebalanced
from moesim.training.sharding import data_parallel_bytes, moved_ps
from moesim.units import from_ps
from moesim.version import __version__

SYNC: Final = "gradients are reduced and parameters gathered while nothing computes"
BESIDE: Final = (
    "layers are gathered and reduced one by one beside compute, never beside all-to-alls or tensor-parallel transfers, "
    "and slow nothing down"
)
RINGS: Final = (
    "keys and values go round context-parallel ranks in bf16 beside attention to the block before (Megatron's p2p); "
    "what it doesn't hide is in the step"
)
HOP: Final = "a stage hands on at the full rate of its link, one flow alone, without start-up"
TWICE: Final = (
    "ranks of dualpipe and dualpipev hold two stages: their gradients and updates are counted one after the other"
)


@dataclass(frozen=True)
class TrainResult(Findings):
    """Of a training step. done: what ranks of the pipeline do, for pictures and traces; drawn: of a run, the numbers of
    each trial, for comparisons: neither is part of the document.
    """

    done: tuple[Done, ...] = ()
    drawn: Mapping[str, Drawn] = field(default_factory=dict, compare=False, repr=False)

    def by_trial(self) -> tuple[Mapping[str, Any], ...]:
        """The document of each trial of a run, of which means are its own; without a run, its own alone."""
        whole = self.to_json()
        trials = [len(one.values) for one in self.drawn.values()][:1] or [1]
        return tuple({**whole, "metrics": {**whole["metrics"], **self._at(trial)}} for trial in range(*trials))

    def _at(self, trial: int) -> dict[str, Any]:
        return {name: Metric(float(one.values[trial]), one.unit).to_json() for name, one in self.drawn.items()}


def run_training(
    scenario: Named, *, overrides: Overrides = (),
    tell: Callable[[str], None] = lambda stage: None,
) -> TrainResult:  # fmt: skip
    """Play one optimizer step. Raises BadInput, DoesNotFit, Deadlock."""
    loaded = scenario if isinstance(scenario, TrainLoaded) else load_training(scenario, overrides)
    plans = None
    if loaded.scenario.parallel.plan:
        loaded, plans = planned(loaded, tell)
        tell(chosen(plans))
    tell("pricing a layer of each kind")
    job = job_of(loaded)
    with loaded.placing("parallel"):
        ledgers = [rank_memory(job, rank) for rank in range(job.pipeline)]
        _check(ledgers)
        told = _told(loaded, job, tell)
    result = _result(loaded, job, told, ledgers)
    if plans:
        result = _more(result, {"plan": plans.to_json()}, (plans.note,))
    return _with_run(loaded, job, told, result, tell) if loaded.scenario.run else result


def _told(loaded: TrainLoaded, job: Job, tell: Callable[[str], None]) -> Told:
    """With even rows one rank stands for all of its stage."""
    if are_even(loaded, job):
        return even_told(job)
    tell("looking tokens up")
    source = tokens_of(loaded, job, 0)
    tell("playing every layer of every micro-batch")
    return routed_told(job, source)


def _with_run(
    loaded: TrainLoaded, job: Job, told: Told, result: TrainResult, tell: Callable[[str], None]
) -> TrainResult:
    """The same, with what a run of many such steps is."""
    section = loaded.scenario.run
    assert section

    with loaded.placing("run"):
        states = checkpoint_bytes(job), restored_bytes(job)
        looks = list(_looks(loaded, job, told, tell))
        found = run_told(section, job, states, looks, loaded.scenario.prices)
    result = replace(result, metrics={**result.metrics, **found.metrics}, drawn=found.drawn)
    return _more(result, found.provenance, found.notes)


def _looks(loaded: TrainLoaded, job: Job, told: Told, tell: Callable[[str], None]) -> Iterator[Look]:
    """Steps after each look at the routing."""
    section = loaded.scenario.run
    assert section

    def source(number: int) -> Sequences:
        tell(f"looking tokens up at step {number}")
        return tokens_of(loaded, job, number)

    if section.rebalance:
        policy = section.rebalance.policy("run.rebalance", 0, redundant=False)
        with loaded.placing("run.rebalance"):
            yield from rebalanced(job, policy, map(source, section.numbers))
        return
    for number in section.numbers:
        seconds = routed_step(job, source(number)).seconds if number else told.seconds
        yield Look(seconds, seconds)


def _more(result: TrainResult, provenance: Mapping[str, Any], notes: tuple[str, ...]) -> TrainResult:
    return replace(
        result, provenance={**result.provenance, **provenance}, warnings=(*result.warnings, *notes)
    )  # fmt: skip


def _check(ledgers: list[MemoryLedger]) -> None:
    """Raises DoesNotFit with the fullest rank's rows."""
    max(ledgers, key=lambda ledger: ledger.used(HBM)).check()


def model_flops(model: MoEModel, sequence: int) -> dict[str, float]:
    """FLOPs of a token, forward and backward, as frameworks count them. Megatron-LM: attention causal, so half of the
    sequence; torchtitan: 6 a parameter and 12 x layers x heads x width x sequence, not causal. Neither counts the
    look-up of the input embedding; of experts those that a token uses.
    """
    looked_up = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size
    used = 6.0 * (model.active_parameters - looked_up)
    seen = {"megatron": sequence / 2, "torchtitan": float(sequence)}
    return {
        name: used + 3 * sum(layers * mixer.mixing_flops(context) for mixer, layers in model.mixed)
        for name, context in seen.items()
    }


def _result(loaded: TrainLoaded, job: Job, told: Told, ledgers: list[MemoryLedger]) -> TrainResult:
    used = [ledger.used(HBM) for ledger in ledgers]
    sent = [data_parallel_bytes(job, rank) for rank in range(job.pipeline)]
    numbers: dict[str, tuple[float, str]] = {
        "step_time_s": (told.seconds, "s"), "tokens_per_s": (job.tokens / told.seconds, "tok/s"),
        "tokens_per_s_per_gpu": (job.tokens / told.seconds / job.world, "tok/s"), **_flops(job, told.seconds),
        "bubble_fraction": (told.bubble, "1"), "alltoall_s": (told.alltoall, "s"),
        "gradient_sync_s": (told.breakdown["gradient_sync_s"], "s"),
        "data_parallel_bytes": (max(sent), "B"),
        "pipeline_hop_s": (told.hop, "s"), "peak_memory_bytes": (max(used), "B"), **told.more,
    }  # fmt: skip
    if job.zero >= GRADIENTS:
        numbers |= _sharded(job)
    prices = loaded.scenario.prices
    numbers |= prices.per_million(job.world * told.seconds, job.tokens) if prices else {}
    metrics = {name: Metric(float(value), unit) for name, (value, unit) in numbers.items()}
    notes = (*told.notes, *_notes(job), *([PAID] if prices else []))
    return TrainResult(loaded.scenario.name, metrics, told.breakdown, _provenance(loaded, job, told, ledgers), notes,
                       told.done)  # fmt: skip


def _sharded(job: Job) -> dict[str, tuple[float, str]]:
    """Seconds that the rank with most is inside the collectives of its passes, hidden or not."""
    each = [moved_ps(job, rank) for rank in range(job.pipeline)]
    gather, reduce = (float(from_ps(max(one[which] for one in each))) for which in (0, 1))
    gathered = {f"gather_{way}_s": (gather, "s") for way in ("forward", "backward")} if job.zero >= WEIGHTS else {}
    return {**gathered, "reduce_scatter_s": (reduce, "s")}


def _notes(job: Job) -> tuple[str, ...]:
    """What is assumed, after all prices were asked for."""
    said = (
        (job.context > 1, RINGS),
        (job.pipeline > 1, HOP),
        (job.order.startswith("dualpipe"), TWICE),
        (job.optimizer.orthogonal, MATRICES),
    )
    clock = [note for note in (job.costs.clock_note,) if note]
    return (
        *job.cluster.warnings, *job.fabric.notes, *job.model.approximations,
        BESIDE if job.reduce_beside or job.gather_beside else SYNC, *(text for true, text in said if true), *clock,
        *price_notes(job.log, job.costs, job.cluster.devices[0].name),
    )  # fmt: skip


def _flops(job: Job, seconds: float) -> dict[str, tuple[float, str]]:
    """TFLOP/s of a GPU and share of its bf16 peak, by both counts."""
    peak, found = job.cluster.devices[0].peak_flops["bf16"], {}
    for name, each in model_flops(job.model, job.sequence).items():
        rate = each * job.tokens / seconds / job.world
        found[f"tflops_per_gpu_{name}"] = (rate / 1e12, "TFLOP/s")
        found[f"mfu_{name}"] = (rate / peak, "1")
    return found


def _provenance(loaded: TrainLoaded, job: Job, told: Told, ledgers: list[MemoryLedger]) -> dict[str, Any]:
    log, device = job.log, job.cluster.devices[0].name
    return {
        "moesim": __version__, "kind": "train", "scenario": loaded.scenario.name,
        "scenario_hash": loaded.scenario.digest, "model": job.model.name, "topology": job.cluster.name,
        "gpus": job.world, "pipeline": job.order, "costs": job.costs.name, "kernels": dict(sorted(log.kernels.items())),
        **({"borrowed": words} if (words := borrowed(job.costs, device)) else {}),
        "costs_basis": {family: log.basis[family] for family in sorted(log.basis)},
        "outside_measured": {family: log.outside[family] / log.asked[family] for family in sorted(log.asked)},
        **told.provenance,
        "flops_per_token": model_flops(job.model, job.sequence),
        "stages": [
            {
                "rank": rank, "layers": [[job.stages[one].first, job.stages[one].last] for one in told.ranks[rank]],
                "passes_alive": job.schedule.alive(rank), "memory_bytes": ledger.used(HBM),
                "capacity_bytes": ledger.capacity[HBM],
                "rows": {row.item: row.bytes for row in ledger.rows},
                "busy": told.busy[rank],
            }
            for rank, ledger in enumerate(ledgers)
        ],
    }  # fmt: skip
