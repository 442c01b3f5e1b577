"""`moesim report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="The page.  [default: in the first RUN]"
)
def report(runs: tuple[str, ...], out: Path | None) -> None:
    """Write the HTML page of stored RUNS; several stand side by side. Changes that `explain` played are told."""
    from moesim import atomic
    from moesim.report import html, stored
    from moesim.report.explain import advice

    found = [stored.open_run(run) for run in runs]
    path = out or found[0].folder / stored.PAGE
    advised = [{**run.pictures, "advice": advice(run.document, stored.read_advice(run) or [])} if "gantt" in run.pictures
               else run.pictures for run in found]  # fmt: skip
    atomic.write(path, html.page([(run.document, drawn) for run, drawn in zip(found, advised, strict=True)]))
    print(path)
