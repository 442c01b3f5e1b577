"""`moesim calibrate measure` and `moesim calibrate truth`: the two verbs that run kernels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from moesim.cli.options import json_option, print_json, text_stream

if TYPE_CHECKING:
    from moesim.calibration.measure.plan import PlanSection
    from moesim.calibration.measure.run import Summary
    from moesim.calibration.truth.verdict import Verdict


@click.command()
@click.option("--plan", metavar="PLAN", help="Shipped name or YAML file.  [default: gpu-20m, cpu-smoke without a GPU]")
@click.option("--models", metavar="A,B", help="Models whose shapes are measured, instead of the plan's.")
@click.option("--budget", default="20m", show_default=True, help="Time of this call, e.g. '90s', '20m', '1h'.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder of the run.")
@click.option("--retry", is_flag=True, help="Try cases that failed before again.")
@json_option
def measure(plan: str | None, models: str | None, budget: str, out: Path, retry: bool, as_json: bool) -> None:
    """Measure this machine's kernels. Stopped or out of budget, the same command goes on where it was.

    With several ranks: torchrun --nproc-per-node N -m moesim calibrate measure ...
    """
    from moesim.calibration.measure.place import default_plan, this_place
    from moesim.calibration.measure.run import measure as run

    seconds = _duration(budget)
    chosen = _plan(plan or default_plan(), models)
    with this_place(chosen.device) as place, _progress(place.peers.rank == 0) as watch:
        summary = run(chosen, place, out, seconds, watch, retry=retry)
        device = place.target.identity()["device"]
    if summary is None:
        return
    _tell(summary, text_stream(as_json))
    if summary.complete and summary.path:
        print(f"next: {_fit_of(summary.path, chosen, device)}", file=text_stream(as_json))
    if as_json:
        print_json(_document(summary, chosen))


@click.command()
@click.option("--rounds", type=click.IntRange(8), default=60, show_default=True, help="Samples of each pass.")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="Whole loops, one after another.")
@json_option
def truth(rounds: int, runs: int, as_json: bool) -> None:
    """Predict a real MoE layer, on two gloo processes here, from costs measured in the same two.

    Exits with 4 where a held-out pass is further off than 15 % (the bar is 10 %). INCONCLUSIVE: the layer's own times
    do not repeat, so there is nothing to compare with.
    """
    from moesim.calibration.truth.setting import Setting
    from moesim.calibration.truth.verdict import truth_loop
    from moesim.errors import TargetMissed

    stream = text_stream(as_json)
    found = []
    for _ in range(runs):
        found.append(truth_loop(Setting(rounds=rounds)))
        print(found[-1].text if runs == 1 else found[-1].summary, file=stream, flush=True)
    if runs > 1:
        print(f"INCONCLUSIVE in {_count(found, 'INCONCLUSIVE')} of {runs} runs", file=stream)
    if as_json:
        print_json(_truth_document(found))
    missed = [one for one in found if one.outcome == "above the gate"]
    if missed:
        raise TargetMissed(f"{len(missed)} of {runs} runs are above the gate; {missed[0].summary}")


def _plan(name: str, models: str | None) -> PlanSection:
    from moesim.calibration.measure.plan import load_plan

    plan = load_plan(name)
    if models is None:
        return plan
    return plan.model_copy(update={"models": tuple(model for model in models.split(",") if model)})


def _duration(text: str) -> float:
    """ "20m" -> 1200.0; units' own spelling "20 min" is understood too. Raises BadInput."""
    from moesim import units

    return units.seconds(re.sub(r"(?<=[\d\s])m$", "min", text.strip()))


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on stderr with the time left; nothing on ranks other than 0."""
    if not shown:
        yield lambda done, total, left: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, left="")

        def watch(done: int, total: int, left: float) -> None:
            bar.update(task, completed=done, total=total, left=f"{_clock(left)} left")

        yield watch


def _clock(seconds: float) -> str:
    whole = max(round(seconds), 0)
    return f"{whole // 60}:{whole % 60:02d}"


def _tell(summary: Summary, stream: IO[str]) -> None:
    for one in summary.refused:
        print(f"left out: {one.operator}: {one.why}", file=stream)
    print(*_failures(summary), sep="", end="", file=stream)
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    print(f"{summary.measured} of {summary.total} cases measured{failed}: {summary.path or 'no records'}", file=stream)
    if summary.failed:
        print("cases that failed are left out from now on; --retry tries them again", file=stream)
    if not summary.complete:
        print("the budget is spent; the same command goes on with the cases that are left", file=stream)


def _failures(summary: Summary) -> Iterator[str]:
    """A line for each reason: a backend without a kernel for a model's heads fails at every size alike."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for case, reason in summary.failed:
        alike.setdefault((case.operator, case.kernel, reason), []).append(str(case))
    for (operator, kernel, reason), cases in alike.items():
        what = cases[0] if len(cases) == 1 else f"{len(cases)} of {' '.join(filter(None, (operator, kernel)))}"
        such = f" (such as {cases[0]})" if len(cases) > 1 else ""
        yield f"failed: {what}: {reason}{such}\n"


def _fit_of(records: Path, plan: PlanSection, device: str) -> str:
    """The command that makes a profile of these records, as it runs on this device."""
    from moesim.calibration.systems import known_devices

    command = f"moesim calibrate fit {records} -o my-{'gpu' if plan.device == 'cuda' else 'cpu'}"
    if plan.device == "cpu":
        return f"{command} --topology cpu-host"
    known = device in known_devices()
    return command if known else f"{command} --topology FILE (a topology with the peaks of {device})"


def _document(summary: Summary, plan: PlanSection) -> dict[str, Any]:
    counts = {"cases": summary.total, "measured": summary.measured, "failed": len(summary.failed)}
    warnings = [f"left out: {one.operator}: {one.why}" for one in summary.refused]
    warnings += [f"failed: {case}: {reason}" for case, reason in summary.failed]
    warnings += [] if summary.complete else ["the budget is spent before the plan"]
    return {
        "metrics": {name: {"value": value, "unit": "1"} for name, value in counts.items()},
        "breakdown": {},
        "provenance": {"plan": plan.name, "device": plan.device, "records": str(summary.path or "")},
        "complete": summary.complete,
        "warnings": warnings,
    }


def _truth_document(found: list[Verdict]) -> dict[str, Any]:
    last = found[-1]
    counts = {"truth_runs": len(found), "truth_runs_inconclusive": _count(found, "INCONCLUSIVE")}
    return {
        "metrics": {**last.metrics(), **{name: {"value": n, "unit": "1"} for name, n in counts.items()}},
        "breakdown": {},
        "outcomes": [one.outcome for one in found],
        "provenance": {"device": "cpu", "ranks": 2, "backend": "gloo"},
        "warnings": [one.summary for one in found if one.outcome != "within the bar"],
    }


def _count(found: list[Verdict], outcome: str) -> int:
    return sum(one.outcome == outcome for one in found)
