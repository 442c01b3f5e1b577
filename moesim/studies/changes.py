"""Changes to a serving system or a training job, each tried by a run: as studies/advice.py does for one step.

`ideal` changes cannot be bought, they bound what a cause costs; all of them together say how far they overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final

from moesim import yamlfile
from moesim.errors import MoesimError
from moesim.schedules.pipelines import Pipeline
from moesim.studies.advice import Change, Tried
from moesim.studies.load import TRAIN
from moesim.studies.serving import ServeScenario, load_serving
from moesim.studies.sweeping.axes import override
from moesim.studies.sweeping.subject import Subject
from moesim.studies.training import load_training
from moesim.studies.training.scenario import TrainBatch, TrainScenario

MANY: Final = 16  # times the micro-batches: a sixteenth of the bubble is left


def advise_run(document: yamlfile.Document, seed: int, tell: Callable[[str], None] = lambda _: None) -> list[Tried]:
    """Every change that suits the scenario, played; largest rate first, then what was refused. Raises BadInput."""
    subject = Subject(str(document.data.get("name")), document.data["mode"], document)
    found = list(training_changes(load_training(document).scenario) if subject.mode == TRAIN
                 else serving_changes(load_serving(document).scenario))  # fmt: skip
    if len(pure := [change for change in found if change.kind == "ideal"]) > 1:
        found.append(Change(tuple(text for change in pure for text in change.overrides), "together"))
    tried = []
    for change in found:
        tell(" ".join(change.overrides))
        tried.append(_try(subject, change, seed))
    return sorted(tried, key=lambda one: -(one.rate or 0.0))


def serving_changes(one: ServeScenario) -> Iterator[Change]:
    """Ideal: even routing, no host, KV that is there at once. Batch limits, replicas, all-to-all and its dtype."""
    settings = one.scheduler.settings()
    if one.routing and not one.routing.balanced:
        yield Change((override("routing", {"balanced": True, "renew": one.routing.renew}),), "ideal")
    host = ("host_time", "frontend_time", "eager_time_per_layer")
    yield Change(tuple(f"scheduler.{name}=0 s" for name in host), "ideal")
    for key in ("max_num_batched_tokens", "max_num_seqs"):
        value = getattr(settings, key)
        yield from (_remedy(f"scheduler.{key}={size}") for size in (value // 2, 2 * value) if size)
    if one.pools:
        yield Change(("pools.transfer=infinite",), "ideal")
        if all(fault.replica is not None for fault in one.faults):  # else the GPUs that die are another replica's
            yield _remedy(f"pools.prefill.replicas={one.pools.prefill.replicas + 1}")
        yield _remedy(f"pools.decode.replicas={one.pools.decode.replicas + 1}")
        return
    yield _remedy(f"replicas={2 * one.replicas}")
    if one.parallel.expert_parallel_size > 1:
        names = ("deepep_low_latency", "deepep_normal", "allgather_reducescatter")
        yield from (_remedy(f"comm.dispatch={name}") for name in names if name != one.comm.dispatch)
        if one.comm.dispatch_dtype == "bf16":
            yield _remedy("comm.dispatch_dtype=fp8")


def training_changes(one: TrainScenario) -> Iterator[Change]:
    """Ideal: next to no bubble. The pipeline's order, all-to-alls beside compute, recomputation, the all-to-all."""
    batch, degrees = one.batch, one.parallel
    if degrees.pipeline_parallel_size > 1:
        yield Change((_more_batches(batch, MANY),), "ideal")
        for name in Pipeline.known:
            if name not in (one.pipeline.schedule, "interleaved") and degrees.virtual_pipeline_size == 1:
                yield _remedy(f"pipeline.schedule={name}")
        if degrees.virtual_pipeline_size == 1:
            yield _remedy("pipeline.schedule=interleaved", "parallel.virtual_pipeline_size=2")
    yield _remedy(_more_batches(batch, 2))
    if degrees.expert_parallel_size > 1:
        yield _remedy(f"pipeline.hide_alltoall={'false' if one.pipeline.hide_alltoall else 'true'}")
        yield from (_remedy(f"comm.dispatch={n}") for n in ("nccl", "deepep_normal") if n != one.comm.dispatch)
    kept: Sequence[str] = [name for name in one.training.recompute if name != "moe"]
    if kept != list(one.training.recompute):
        yield _remedy(override("training.recompute", kept))


def _more_batches(batch: TrainBatch, times: int) -> str:
    """So many times the micro-batches, by the key that says how many there are."""
    if batch.global_batch_size:
        return f"batch.global_batch_size={times * batch.global_batch_size}"
    return f"batch.micro_batches={times * batch.micro_batches}"


def _remedy(*overrides: str) -> Change:
    return Change(overrides, "remedy")


def _try(subject: Subject, change: Change, seed: int) -> Tried:
    named = ", ".join(change.overrides)
    try:
        found = Subject(subject.name, subject.mode, deepcopy(subject.base)).play(change.overrides, seed)
    except MoesimError as error:
        return Tried(named, change.kind, None, None, str(error.what))
    return Tried(named, change.kind, *headline(found))


def headline(document: Any) -> tuple[float, float]:
    """Seconds that matter, of a step or of the mean request, and tokens a second of a GPU, of a run's document."""
    value = {name: float(one["value"]) for name, one in document["metrics"].items()}
    if document["provenance"]["kind"] == TRAIN:
        return value["step_time_s"], value["tokens_per_s_per_gpu"]
    return value["mean_e2el_ms"] / 1e3, value["output_throughput"] / document["provenance"]["gpus"]
