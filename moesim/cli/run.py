"""`moesim run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from moesim.cli.options import (
    OptionalFiles,
    ScenarioName,
    json_option,
    overrides_option,
    print_json,
    ranks_of,
    text_stream,
)
from moesim.compiled import CACHED, KERNELS

DEMO: Final = ("demo-tiny", "demo-qwen3")  # the recorded trace on its own model, then on one that people serve
SERVED: Final = "demo-serve"  # and requests to it


@click.command(cls=OptionalFiles)
@click.argument("scenario", type=ScenarioName(), required=False)
@click.option("--demo", is_flag=True, help="Play the three shipped demo scenarios; files and JSON are the second's.")
@overrides_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Picks the requests.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run.  [default: runs/<hash>]"
)
@click.option("--report", metavar="[=FILE]", help="Write an HTML page.  [default: report.html in the run's folder]")
@click.option("--trace", metavar="[=FILE]", help="Write a trace for Perfetto; a folder gets a file a rank, for HTA.")
@click.option(
    "--ranks",
    callback=ranks_of,
    metavar="LIST",
    help="Ranks that the page draws, e.g. 0,3,8-11.  [default: of a pipeline all, else 8 idlest to busiest]",
)
@json_option
@click.option("--assert", "assertion", metavar="EXPR", help="Exit with 4 unless it holds, e.g. 'step_time_s < 0.05'.")
def run(
    scenario: str | None, demo: bool, overrides: tuple[str, ...], seed: int, out: Path | None, report: str | None,
    trace: str | None, ranks: tuple[int, ...], as_json: bool, assertion: str | None,
) -> None:  # fmt: skip
    """Simulate SCENARIO: a shipped name (see `moesim list`) or a YAML file (see `moesim init`)."""
    if demo == (scenario is not None):
        raise click.UsageError("give a SCENARIO or --demo, and only one of them", click.get_current_context())
    if demo:
        os.environ.setdefault(KERNELS, CACHED)
    from moesim.cli.play import Files, play
    from moesim.studies.expression import Expression

    target = Expression(assertion) if assertion is not None else None
    stream = text_stream(as_json)
    for name in DEMO[:-1] if demo else ():
        play(name, (), seed, Files(), None, stream)
    chosen = DEMO[-1] if scenario is None else scenario
    stored = play(chosen, overrides, seed, Files(out, report, trace, ranks), target, stream)
    if demo:
        play(SERVED, (), seed, Files(), None, stream)
    if as_json:
        print_json(stored.document)
    missed = target.check(stored.document) if target else None
    if missed:
        raise missed
