"""A run: every case of a plan, in random order, within a budget, kept one by one."""

from __future__ import annotations

import importlib.metadata
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from moesim.calibration.measure.attempt import Failed, Taken, attempt
from moesim.calibration.measure.case import Case
from moesim.calibration.measure.journal import Journal
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.sentinel import in_random_order
from moesim.calibration.operators import OPERATORS, find_operator
from moesim.calibration.operators.operator import Place
from moesim.calibration.records import Records, records_of
from moesim.calibration.systems import COLD
from moesim.errors import BadInput, Interrupted, TryAgain

HARNESS = 2  # counts up when the way of measuring changes
LEAST_BUDGET = 0.05  # seconds of a case, however many there are


@dataclass(frozen=True)
class Refused:
    """An operator of the plan that cannot be measured here, and why."""

    operator: str
    why: str


@dataclass(frozen=True)
class Summary:
    """measured: cases with records, now or before; failed: (case, reason); path: of the records, if there are any."""

    total: int
    measured: int
    failed: tuple[tuple[Case, str], ...]
    refused: tuple[Refused, ...]
    complete: bool
    path: Path | None


Watch = Callable[[int, int, float], None]  # cases done, of how many, seconds left


def measure(
    plan: PlanSection, place: Place, folder: Path, budget: float, watch: Watch, *, retry: bool = False
) -> Summary | None:
    """Measure what the folder's journal does not have yet, for at most `budget` seconds; None on ranks other than 0.

    retry: cases that failed before are tried again.
    Raises BadInput where the plan cannot be run here or the folder is another run's, and Interrupted after Ctrl-C.
    """
    order, refused = expand(plan, place)
    journal = place.peers.share(_begin(plan, place, folder) if place.peers.rank == 0 else None)
    if isinstance(journal, BadInput):
        raise journal
    if retry and place.peers.rank == 0:
        journal.forget_failures()
    settled = place.peers.share(journal.done() | set(journal.failures()))
    try:
        with torch.inference_mode():
            _work(order, settled, _Run(plan, place, journal, budget, watch))
    except KeyboardInterrupt:
        if place.peers.rank == 0:
            journal.finish(len(order), plan.drift)
        text = f"{len(journal.done())} of {len(order)} cases are kept in {folder}"
        raise Interrupted(text, way_out="the same command: it goes on where it was") from None
    if place.peers.rank:
        return None
    path, complete = journal.finish(len(order), plan.drift)
    failed = tuple((order[number], reason) for number, reason in sorted(journal.failures().items()))
    return Summary(len(order), len(journal.done()), failed, refused, complete, path)


def expand(plan: PlanSection, place: Place) -> tuple[list[Case], tuple[Refused, ...]]:
    """The plan's cases in the order in which they are measured, and the operators that are left out.

    Raises BadInput for an unknown operator, and where nothing is left.
    """
    cases: list[Case] = []
    refused: list[Refused] = []
    for name in plan.operators:
        why = _refusal(name, place)
        found = [] if why else list(OPERATORS[name].cases(plan, place.peers.world))
        if not found:
            refused.append(Refused(name, why or "the plan's models, dtypes, sizes and backends make no case of it"))
        cases += _in_modes(found, plan, OPERATORS[name].graphs)
    if not cases:
        told = "; ".join(f"{one.operator}: {one.why}" for one in refused) or "its lists make no case"
        way_out = (
            "a plan of other operators, or of this device: --plan cpu-smoke" if refused else "longer lists in the plan"
        )
        raise BadInput(f"plan {plan.name} has nothing to measure here ({told})", way_out=way_out)
    return in_random_order(dict.fromkeys(cases), plan), tuple(refused)


def _refusal(name: str, place: Place) -> str:
    operator, world = find_operator(name), place.peers.world
    if world < operator.least_world:
        return f"needs {operator.least_world} ranks (torchrun --nproc-per-node {operator.least_world} -m moesim ...)"
    return operator.refuses(place.target)


def _in_modes(cases: Iterable[Case], plan: PlanSection, graphs: bool) -> list[Case]:
    modes = [mode for mode in plan.modes if mode == "eager" or graphs]
    return [replace(case, mode=mode) for case in cases for mode in modes]


def _begin(plan: PlanSection, place: Place, folder: Path) -> Journal | BadInput:
    """The journal; an error is handed on, so that every rank stops with it."""
    facts = {
        "moesim_run": 1, "run": uuid.uuid4().hex[:12], "plan": plan.model_dump(mode="json"),
        "device": dict(place.target.identity()), "world": place.peers.world,
    }  # fmt: skip
    try:
        return Journal.open(folder, facts)
    except BadInput as error:
        return error


@dataclass(frozen=True)
class _Run:
    """What the loop over cases needs."""

    plan: PlanSection
    place: Place
    journal: Journal
    budget: float
    watch: Watch


def _work(order: list[Case], settled: set[int], run: _Run) -> None:
    """Fill the journal until all is done or the budget is spent."""
    start = time.monotonic()
    waiting = [number for number in range(len(order)) if number not in settled]
    for finished, number in enumerate(waiting):
        passed = time.monotonic() - start
        left = run.budget - passed
        rest = len(waiting) - finished
        estimate = passed / finished * rest if finished else left
        run.watch(len(order) - rest, len(order), min(left, estimate))
        if run.place.peers.any(left <= 0):
            return
        share = max(min(left / rest, run.plan.sampling.per_case), LEAST_BUDGET)
        _one(number, order[number], run, share)
    run.watch(len(order), len(order), 0.0)


def _one(number: int, case: Case, run: _Run, budget: float) -> None:
    """Raises TryAgain where the device or a rank is lost; the case counts as failed."""
    writes = run.place.peers.rank == 0
    if writes:
        run.journal.begin(number, str(case))
    try:
        taken = attempt(case, run.place, run.plan, budget)
    except (Failed, TryAgain) as error:
        if writes:
            run.journal.fail(number, error.what if isinstance(error, TryAgain) else str(error))
        if isinstance(error, TryAgain):
            raise
        return
    rows = run.place.peers.gather(_row(number, case, taken, run))
    if writes:
        run.journal.keep(number, _same_label(records_of([row for row in rows if row["samples"]])))


def _row(number: int, case: Case, taken: Taken, run: _Run) -> dict[str, Any]:
    """The record of this rank."""
    target, peers, operator = run.place.target, run.place.peers, OPERATORS[case.operator]
    identity = target.identity()
    backend = operator.backend or target.backend
    version = identity["nccl"] if backend == "nccl" else version_of(operator.module) or identity["torch"]
    clock = "wall seconds" if operator.collective and peers.world > 1 else "CPU seconds"
    facts = [
        f"plan {run.plan.name}",
        f"harness {HARNESS}",
        COLD if run.plan.sampling.cold else "warm L2",
    ]
    facts += [clock] if target.device_class == "cpu" else []
    return {
        **case.row(peers.rank), **identity, "device_sms": target.sms, "run": run.journal.run, "case": number,
        "device_class": target.device_class,
        "backend": backend, "version": version, "kernel": case.kernel or operator.kernel,
        **taken.columns, "world": peers.world, "nodes": peers.nodes,
        "rank": peers.rank, "samples": taken.samples,
        "clock_before": taken.clock_before, "clock_after": taken.clock_after, "label": taken.label,
        "provenance": ", ".join(facts),
    }  # fmt: skip


@lru_cache(maxsize=8)
def version_of(module: str) -> str:
    """Of the distribution that brings that module, "" where none says so."""
    found = importlib.metadata.packages_distributions().get(module, []) if module else []
    return importlib.metadata.version(found[0]) if found else ""


def _same_label(records: Records) -> Records:
    """A case that one rank spoilt is spoilt on all."""
    spoilt = next((label for label in records["label"] if label.startswith("throttled")), "")
    return records.relabelled([spoilt] * len(records)) if spoilt else records
