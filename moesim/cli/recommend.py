"""`moesim recommend`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moesim.cli.options import engine_option, jobs_option, json_option, print_json, scenario_argument, text_stream

if TYPE_CHECKING:
    from moesim.studies.sweeping import Engine


@click.command()
@scenario_argument
@click.option("--gpus", type=click.IntRange(1), metavar="N", help="At most.  [default: the cluster's]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE[,VALUE...]",
    help="One value sets a key, several are searched too (batch limits take the place of the usual ones).",
)  # fmt: skip
@click.option(
    "--attain", type=click.FloatRange(0, 1), default=0.95, show_default=True, metavar="SHARE",
    help="Of requests, that have to meet every limit of slo.",
)  # fmt: skip
@click.option("--pools/--no-pools", default=None, help="Pools of prefill and decode too.  [default: as the scenario]")
@click.option("--simulate", type=click.IntRange(1), default=24, show_default=True, metavar="N", help="Runs at most.")
@click.option("--exhaustive", is_flag=True, help="Simulate every candidate, and say how far the search alone gets.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of requests.")
@jobs_option
@engine_option
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Store of the runs.  [default: sweeps/<hash>]"
)
@json_option
def recommend(
    scenario: str, gpus: int | None, settings: tuple[str, ...], attain: float, pools: bool | None, simulate: int,
    exhaustive: bool, seed: int, jobs: int | None, engine: Engine, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Which deployment of SCENARIO's model, GPUs and traffic? (mode: serve, or train: which layout and schedule?)

    Its layout is not kept, it is searched. Candidates are screened by arithmetic, the best are simulated and stored as
    a sweep's points, so the same command goes on where it was. What nothing beats is written as scenarios for `run`.
    """
    from moesim.cli.sweep import jobs_of, pace
    from moesim.compiled import uncompiled
    from moesim.report import tables
    from moesim.report.progress import FIRST, told
    from moesim.report.recommend_tables import recommend_text
    from moesim.studies.recommending import Asked
    from moesim.studies.recommending import recommend as search

    asked = Asked(
        scenario, settings, gpus, attain, simulate, exhaustive, pools, seed, jobs_of(engine, jobs), engine, out
    )
    name = scenario + (FIRST if uncompiled() else "")
    with told(sys.stderr, f"moesim recommend {name}") as tell:
        found = search(asked, tell, pace(tell))
    tables.show(recommend_text(found), text_stream(as_json))
    if as_json:
        print_json(found.to_json())
