"""`recommend`: a scenario's question in, the deployments that nothing beats out."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from moesim import atomic, yamlfile
from moesim.errors import BadInput, DoesNotFit
from moesim.hardware import load_cluster
from moesim.models import load_model
from moesim.studies.fronts import Quality, quality
from moesim.studies.load import SERVE, TRAIN, apply, find
from moesim.studies.recommending.finalists import Found, Known, finalists
from moesim.studies.recommending.flags import launch
from moesim.studies.recommending.recommendation import Recommendation, Row
from moesim.studies.recommending.runs import Runs
from moesim.studies.recommending.serving import COLUMNS, figures, reached, screen
from moesim.studies.recommending.space import holding, serving_space, training_space
from moesim.studies.serving import load_serving
from moesim.studies.sweeping.axes import Axis, one_each, override, read_axis
from moesim.studies.sweeping.executor import Executor
from moesim.studies.sweeping.subject import Subject
from moesim.studies.sweeping.sweep import Engine, Tell, executing
from moesim.studies.training import load_training

OWN: Final = {SERVE: ("parallel", "replicas", "pools"), TRAIN: ("parallel", "pipeline")}  # keys that are searched
# Sections of them, with a key of each for example.
HOLDS: Final = {"parallel": "tensor_parallel_size=4", "pipeline": "schedule=1f1b", "pools": "decode.replicas=2",
                "prefill": "replicas=2", "decode": "replicas=2"}  # fmt: skip
GOALS: Final = {SERVE: dict.fromkeys(COLUMNS, 1.0),
                TRAIN: {"tokens_per_s_per_gpu": 1.0, "peak_memory_bytes": -1.0}}  # fmt: skip
FILES: Final = "recommended"  # folder in the store


@dataclass(frozen=True)
class Asked:
    """What is wanted. gpus: at most, None: the cluster's; attain: share of requests that meet every limit; budget:
    simulations at most; exhaustive: all candidates that can be built; pools: None: where the scenario has pools.
    """

    scenario: str
    settings: tuple[str, ...] = ()
    gpus: int | None = None
    attain: float = 0.95
    budget: int = 24
    exhaustive: bool = False
    pools: bool | None = None
    seed: int = 0
    jobs: int = 1
    engine: Engine = "local"
    folder: Path | None = None


@dataclass(frozen=True)
class Question:
    """What is asked, read. document: the scenario with its settled keys; subject: without those that are searched;
    axes: what is varied beside them; held: searched keys, with the values that they may have.
    """

    asked: Asked
    document: yamlfile.Document
    subject: Subject
    axes: tuple[Axis, ...]
    held: tuple[Axis, ...]
    gpus: int
    node: int

    @property
    def mode(self) -> str:
        """Of the scenario."""
        return self.subject.mode


def recommend(
    asked: Asked, tell: Callable[[str], None] = lambda stage: None, pace: Tell = lambda there, of, ran: None
) -> Recommendation:  # fmt: skip
    """Raises BadInput, DoesNotFit where no candidate can be or meets the limits, TryAgain."""
    question = _read(asked)
    with executing(asked.engine, asked.jobs) as executor:
        if question.mode == TRAIN:
            return _training(question, executor, pace)
        return _serving(question, tell, executor, pace)


def _read(asked: Asked) -> Question:
    """Raises BadInput for a scenario that has no deployment, or cannot be as it stands."""
    document = yamlfile.read_yaml(find(asked.scenario))
    given = [read_axis(text) for text in asked.settings]
    one_each(given)
    axes = [axis for axis in given if not isinstance(axis.values, tuple) or len(axis.values) > 1]
    apply(document, [override(axis.key, axis.values[0]) for axis in given if axis not in axes])  # type: ignore[index]
    mode = document.data.get("mode", "step")
    if mode not in OWN:
        raise BadInput(f"mode {mode} has no deployment to search", where=document.where(("mode",)),
                       way_out="a scenario of mode: serve or mode: train; moesim sweep varies a step")  # fmt: skip
    held = tuple(axis for axis in given if axis.key.split(".")[0] in OWN[mode])
    for key in (axis.key for axis in held):
        if example := HOLDS.get(key.rpartition(".")[2]):
            raise BadInput("is searched", where=f"--set {key}", way_out=f"one of its keys, as {key}.{example}")
        if key.startswith("pools.") and (own := key.split(".")[2:]) and own[0] not in OWN[SERVE]:
            raise BadInput("is left out, as pools are searched", where=f"--set {key}",
                           way_out=f"{'.'.join(own)}, which holds for both, or moesim sweep")  # fmt: skip
    loaded = (load_serving if mode == SERVE else load_training)(document)
    for number, fault in enumerate(getattr(loaded.scenario, "faults", ())):
        if getattr(fault, "replica", None) is not None:
            raise BadInput("replicas are searched: one of this number is another in each", where=f"faults[{number}]",
                           way_out="a gpu or node that dies, or no faults")  # fmt: skip
    cluster = load_cluster(loaded.scenario.cluster.topology, **loaded.scenario.cluster.changes)
    gpus = asked.gpus or cluster.num_devices
    if gpus > cluster.num_devices:
        raise BadInput(f"{gpus} GPUs, the cluster has {cluster.num_devices}", where="--gpus",
                       way_out="--set cluster.nodes=...")  # fmt: skip
    data = copy.deepcopy(document.data)
    for key in OWN[mode]:
        data.pop(key, None)
    subject = Subject(str(data.get("name") or "recommend"), mode, yamlfile.Document(data, document.source))
    varied = tuple(axis for axis in axes if axis not in held)
    return Question(asked, document, subject, varied, held, gpus, cluster.gpus_per_node)


def _serving(question: Question, tell: Callable[[str], None], executor: Executor, pace: Tell) -> Recommendation:
    """Screened, then simulated; a small space is simulated whole, and tells what the search alone would have found."""
    asked, subject = question.asked, question.subject
    pools = question.document.data.get("pools") is not None if asked.pools is None else asked.pools
    space = serving_space(subject.base, question.gpus, question.node, question.axes, pools=pools)
    space = holding(space, question.held)
    able = screen(subject, space, asked.seed, tell)
    screened = able.screen(load_serving(question.document).scenario.slo.limits)
    runs = Runs(subject, able.candidates, asked.seed, executor, asked.folder, pace)

    def simulate(rows: Sequence[int]) -> Known:
        tell(f"simulating, {len(runs.kept) + len(rows)} of {len(able.candidates)} candidates")
        return {row: None if metrics is None else reached(metrics, able.candidates[row].gpus, asked.attain)
                for row, metrics in runs(rows).items()}  # fmt: skip

    whole = asked.exhaustive or len(able.candidates) <= asked.budget
    every: Known = simulate(range(len(able.candidates))) if whole else {}
    found = finalists(screened, (lambda rows: {row: every[row] for row in rows}) if whole else simulate, asked.budget)
    known = every if whole else found.known
    rows = [
        Row(able.candidates[row], figures(metrics, able.candidates[row].gpus), metrics, (one := known[row]) is not None
            and one.meets) for row, metrics in runs.kept.items() if metrics is not None
    ]  # fmt: skip
    result = _ranked(question, rows, runs)
    refused = by_reason((error.exit_code, str(error)) for _, error in able.refused)
    result = replace(result, candidates=len(space), refused=refused, reasons=by_reason(runs.reasons.values()),
                     dropped=_dropped(question.document))  # fmt: skip
    if not whole:
        return replace(result, left=len(found.left), slack=found.slack)
    return replace(result, share=_share(rows, able.candidates, found), searched=len(found.known))


def _dropped(document: yamlfile.Document) -> tuple[str, ...]:
    """What the scenario says of a pool beside what is searched."""
    pools = document.data.get("pools") or {}
    return tuple(f"pools.{role}.{key}" for role in ("prefill", "decode") for key in pools.get(role, {})
                 if key not in ("parallel", "replicas"))  # fmt: skip


def _share(rows: Sequence[Row], candidates: Sequence[Any], found: Found) -> float:
    """Of the hypervolume of all that meet the limits, what the search alone reaches."""
    good = [row for row in rows if row.meets]
    seen = [one.values[:2] for one in found.known.values() if one is not None and one.meets]
    box = np.array([[row.found[name] for name in COLUMNS] for row in good])
    best = quality(box).hypervolume
    if not best or not seen:
        return 1.0 if not best and seen else 0.0
    return quality(np.array(seen), box).hypervolume / best


def _training(question: Question, executor: Executor, pace: Tell) -> Recommendation:
    """All of them: a pipelined step takes less time than an estimate of it would need to be any good."""
    subject = question.subject
    layers = load_model(subject.base.data["model"]).num_layers
    space = holding(training_space(question.document, question.gpus, question.axes, layers), question.held)
    runs = Runs(subject, tuple(space), 0, executor, question.asked.folder, pace)
    runs(range(len(space)))
    rows = [Row(space[row], {name: float(metrics[name]["value"]) for name in GOALS[TRAIN]}, metrics, True)
            for row, metrics in runs.kept.items() if metrics is not None]  # fmt: skip
    if not rows:
        raise DoesNotFit(next(iter(runs.reasons.values()))[1], where=question.document.source, way_out="more GPUs")
    result = _ranked(question, rows, runs)
    return replace(result, candidates=len(space), refused=by_reason(runs.reasons.values()), failed=0, share=1.0,
                   searched=len(space))  # fmt: skip


def by_reason(reasons: Iterable[tuple[int, str]]) -> dict[str, int]:
    """How many do not fit, with the first one's table, and how many are refused for each other reason."""
    kinds = [(code, text) for code, text in reasons]
    unfit = [text for code, text in kinds if code == DoesNotFit.exit_code]
    counts = {f"do not fit, e.g. {unfit[0]}": len(unfit)} if unfit else {}
    return counts | dict(Counter(text for code, text in kinds if code != DoesNotFit.exit_code))


def _ranked(question: Question, rows: Sequence[Row], runs: Runs) -> Recommendation:
    """With the front in order and a file for each of it. Raises DoesNotFit where nothing meets the limits."""
    goals = GOALS[question.mode]
    good = [number for number, row in enumerate(rows) if row.meets]
    if not good:
        best = max((row.found["slo_attainment"] for row in rows), default=0.0)
        why = next((f" ({len(runs.reasons)} failed, e.g. {text})" for _, text in runs.reasons.values()), "")
        raise DoesNotFit(
            f"none of {len(rows)} simulated deployments meets the limits: at best {best:.1%} of requests do{why}",
            where="slo", way_out="a lower --attain, wider limits, less traffic or more GPUs; --simulate more",
        )  # fmt: skip
    values = np.array([[rows[number].found[name] * sign for name, sign in goals.items()] for number in good])
    found: Quality = quality(values)
    ranked = list(rows)
    for place, number in enumerate(good[row] for row in found.front):
        ranked[number] = _written(question, replace(rows[number], front=place + 1), runs.folder)
    return Recommendation(
        question.subject.name, question.mode, tuple(goals), tuple(ranked), len(rows), {}, 0, found.hypervolume, (),
        runs.folder, len(runs.reasons),
    )  # fmt: skip


def _written(question: Question, row: Row, folder: Path) -> Row:
    """With a scenario that `run` takes, and what starts the same on engines."""
    base = yamlfile.Document(copy.deepcopy(question.subject.base.data), question.document.source)
    apply(base, [override(*pair) for pair in row.candidate.keys.items()])
    base.data["name"] = f"{question.subject.name}-{row.front}"
    flags = launch(base.data)
    head = "".join(f"# {engine}: {line}\n" for engine, line in flags.items())
    path = folder / FILES / f"{row.front}.yaml"
    atomic.write(path, head + yaml.safe_dump(base.data, sort_keys=False, allow_unicode=True))
    return replace(row, file=path, flags=flags)
