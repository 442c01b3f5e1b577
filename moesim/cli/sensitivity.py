"""`moesim sensitivity`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moesim.cli.options import engine_option, jobs_option, json_option, print_json, scenario_argument, text_stream

if TYPE_CHECKING:
    from moesim.studies.sweeping import Engine


USUAL = {"morris": 8, "sobol": 64, "transport": 200}


@click.command()
@scenario_argument
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=LOW..HIGH", help="An input: an interval, or values as in `sweep`; "
    "one value sets a key.",
)  # fmt: skip
@click.option("--bands", is_flag=True, help="The calibrated error of each family of costs is an input too.")
@click.option(
    "--metric", default="step_time_s", show_default=True, metavar="EXPR", help="A metric, or arithmetic of them."
)
@click.option(
    "--method", type=click.Choice(list(USUAL)), default="morris", show_default=True,
    help="morris: steps of one input at a time; sobol: shares of the variance; transport: of the whole distribution.",
)  # fmt: skip
@click.option(
    "--points", type=click.IntRange(1), metavar="N",
    help="morris: trajectories of inputs + 1 runs (8); sobol: power of two, x (inputs + 2) (64); transport: runs (200)",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of requests and draws.")
@jobs_option
@engine_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Store of the runs.  [default: sweeps/<hash>]"
)
@json_option
def sensitivity(
    scenario: str, settings: tuple[str, ...], bands: bool, metric: str, method: str, points: int | None, seed: int,
    jobs: int | None, engine: Engine, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Which input moves a number of SCENARIO, and which does not? Runs are stored as a sweep's, and resumable."""
    from moesim.cli.sweep import jobs_of, pace
    from moesim.compiled import uncompiled
    from moesim.report import tables
    from moesim.report.progress import FIRST, told
    from moesim.report.sweep_tables import sensitivity_text
    from moesim.studies.sensitivity import sensitivity as find
    from moesim.studies.sweeping import read_plan

    number = points or USUAL[method]
    plan = read_plan(scenario, settings, design="latin", points=number, seed=seed)
    name = plan.subject.name + (FIRST if uncompiled() else "")
    with told(sys.stderr, f"moesim sensitivity {name}") as tell:
        found = find(
            plan,
            metric,
            method,
            number,
            bands=bands,
            folder=out,
            jobs=jobs_of(engine, jobs),
            engine=engine,
            tell=pace(tell),
        )
    tables.show(sensitivity_text(found), text_stream(as_json))
    if as_json:
        print_json(found.to_json())
