"""`moesim search`."""

from __future__ import annotations

import sys
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
    from moesim.studies.searching import Sampler
    from moesim.studies.sweeping import Engine


@click.command(cls=OptionalReport)
@scenario_argument
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE[,VALUE...]",
    help="One value sets a key, several, or low..high (or 'log low..high'), are searched.",
)  # fmt: skip
@click.option("--front", required=True, metavar="METRIC:max,METRIC:min", help="Goals: one, or several for their front.")
@click.option(
    "--budget", type=click.IntRange(1, 10_000), default=60, show_default=True, metavar="N", help="Runs at most."
)
@click.option(
    "--sampler", type=click.Choice(["tpe", "nsga2"]), default="tpe", show_default=True,
    help="Who asks, where the space is larger than the budget; a smaller one is played whole.",
)  # fmt: skip
@click.option("--exhaustive", is_flag=True, help="Play every point too, and say how far the search alone gets.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of requests and draws.")
@jobs_option
@engine_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Store of the runs.  [default: sweeps/<hash>]"
)
@click.option("--report", metavar="[=FILE]", help="Write an HTML page.  [default: report.html in the store]")
@json_option
def search(
    scenario: str, settings: tuple[str, ...], front: str, budget: int, sampler: Sampler, exhaustive: bool, seed: int,
    jobs: int | None, engine: Engine, out: Path | None, report: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Which values of keys of SCENARIO are best? An optimizer asks for points (extra search: optuna).

    For deployments and training layouts there is recommend, which knows what is legal. Runs are stored as a sweep's, so
    the same command goes on where it was.
    """
    from moesim import atomic
    from moesim.cli.sweep import jobs_of, pace
    from moesim.compiled import uncompiled
    from moesim.report import tables
    from moesim.report.progress import FIRST, told
    from moesim.report.sweep_page import SCENARIO, sweep_page
    from moesim.report.sweep_tables import search_text
    from moesim.studies.fronts import read_goals
    from moesim.studies.searching import Wanted
    from moesim.studies.searching import search as find
    from moesim.studies.sweeping import read_plan

    plan = read_plan(scenario, settings, design="latin", points=budget, seed=seed)
    wanted = Wanted(plan, read_goals(front), budget, sampler, seed, exhaustive)
    name = plan.subject.name + (FIRST if uncompiled() else "")
    with told(sys.stderr, f"moesim search {name}") as tell:
        found = find(wanted, jobs=jobs_of(engine, jobs), engine=engine, folder=out, tell=pace(tell))
    tables.show(search_text(found), text_stream(as_json))
    if report is not None:
        path = Path(report) if report else found.sweep.folder / "report.html"
        command = command_line({"scenario": SCENARIO})
        atomic.write(path, sweep_page(found.sweep, plan.subject.headline, found.front, command))
        print(path, file=text_stream(as_json))
    if as_json:
        print_json(found.to_json())
