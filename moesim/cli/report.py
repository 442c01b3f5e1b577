"""`moesim report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from moesim.report.stored import StoredRun


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="The page.  [default: in the first RUN]"
)
def report(runs: tuple[str, ...], out: Path | None) -> None:
    """Write the HTML page of stored RUNS; several stand side by side. Changes that `explain` played are told."""
    from moesim import atomic
    from moesim.report import html, stored

    found = [stored.open_run(run) for run in runs]
    path = out or found[0].folder / stored.PAGE
    advised = [_advised(run) for run in found]
    atomic.write(path, html.page([(run.document, drawn) for run, drawn in zip(found, advised, strict=True)]))
    print(path)


def _advised(run: StoredRun) -> Mapping[str, Any]:
    """Its pictures, with what was advised; a serving run gets no advice."""
    from moesim.report import stored
    from moesim.report.explain import advice

    if "gantt" not in run.pictures:
        return stored.drawn(run)
    return {**stored.drawn(run), "advice": advice(run.document, stored.read_advice(run) or [])}
