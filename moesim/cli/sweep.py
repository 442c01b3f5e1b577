"""`moesim sweep`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moesim.cli.options import (
    OptionalReport,
    command_line,
    engine_option,
    jobs_option,
    json_option,
    print_json,
    scenario_argument,
    text_stream,
)

if TYPE_CHECKING:
    from moesim.studies.sweeping import Engine


@click.command(cls=OptionalReport)
@scenario_argument
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE[,VALUE...]",
    help="One value sets a key, several make an axis, low..high (or 'log low..high') an interval to draw from; "
    "error.FAMILY is the factor on a family of costs.",
)  # fmt: skip
@click.option(
    "--design", type=click.Choice(["cartesian", "zipped", "random", "latin"]), help="Which values meet.  [cartesian]"
)
@click.option("--points", type=click.IntRange(1), metavar="N", help="Of a random or latin design.")
@click.option("--seeds", type=click.IntRange(1, 1000), metavar="N", help="Runs of each point.  [1]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="The first of them.  [0]")
@jobs_option
@engine_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Store of the points.  [default: sweeps/<hash>]"
)
@click.option("--show", metavar="METRIC,...", help="Columns of the table that is printed.")
@click.option("--front", metavar="METRIC:max,METRIC:min", help="Points that no other beats, with hypervolume and R2.")
@click.option(
    "--quality", type=click.Path(path_type=Path), metavar="FILE.csv",
    help="What moesim does not predict (accuracy, loss, price) by the keys in its header: metrics quality.<column>.",
)  # fmt: skip
@click.option("--report", metavar="[=FILE]", help="Write an HTML page.  [default: report.html in the store]")
@json_option
def sweep(
    scenario: str, settings: tuple[str, ...], design: str | None, points: int | None, seeds: int | None,
    seed: int | None, jobs: int | None, engine: Engine, out: Path | None, show: str | None, front: str | None,
    quality: Path | None, report: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Run SCENARIO with keys varied: a shipped name, a scenario of any mode, or the file of a sweep.

    Every point is stored once under the hash of what it depends on: its keys, the files that they name, its seed and
    moesim's own version and sources. The same command after an interruption goes on where it was; a point that fails
    is recorded with its reason, and the others go on.
    """
    from moesim import atomic
    from moesim.compiled import uncompiled
    from moesim.report import tables
    from moesim.report.progress import FIRST, told
    from moesim.report.sweep_page import SCENARIO, sweep_page
    from moesim.report.sweep_tables import sweep_text
    from moesim.studies.fronts import read_goals
    from moesim.studies.sweeping import read_plan
    from moesim.studies.sweeping import sweep as run_sweep

    goals = read_goals(front) if front else None

    plan = read_plan(
        scenario, settings, design=design, points=points, seeds=seeds, seed=seed, quality=quality,  # type: ignore[arg-type]
    )  # fmt: skip
    wanted = [*(show.split(",") if show else ()), *(goal.metric for goal in goals or ())]
    name = plan.subject.name + (FIRST if uncompiled() else "")
    with told(sys.stderr, f"moesim sweep {name}") as tell:
        found = run_sweep(
            plan, jobs=jobs_of(engine, jobs), engine=engine, folder=out, tell=pace(tell), wanted=wanted
        )  # fmt: skip
    shown = tuple(show.split(",")) if show else (*plan.subject.headline, *(plan.quality.names if plan.quality else ()))
    best = found.front(goals) if goals else None
    tables.show(sweep_text(found, shown, named=show is not None, front=best), text_stream(as_json))
    if report is not None:
        path = Path(report) if report else found.folder / "report.html"
        atomic.write(path, sweep_page(found, shown, best, command_line({"scenario": SCENARIO})))
        print(path, file=text_stream(as_json))
    if as_json:
        print_json(found.to_json(best))
    if found.exit_code:
        raise click.exceptions.Exit(found.exit_code)


def jobs_of(engine: Engine, jobs: int | None) -> int:
    """As asked; else a core each here, and as many as a cluster has."""
    if jobs is not None:
        return jobs
    return cores() if engine == "local" else 0


def cores() -> int:
    """Those that this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def pace(tell: Callable[[str], None]) -> Callable[[int, int, int], None]:
    """Says how many are there, how fast, and how long it takes yet."""
    begun = time.monotonic()

    def say(there: int, of: int, ran: int) -> None:
        rate = ran / max(time.monotonic() - begun, 1e-9)
        tell(f"{there} of {of} points, {rate:.3g}/s, {(of - there) / rate:.0f} s left")

    return say
