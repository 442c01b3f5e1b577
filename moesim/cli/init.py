"""`moesim init`."""

from __future__ import annotations

from pathlib import Path

import click

from moesim.cli.options import deliver


@click.command()
@click.option("--like", default="demo-qwen3", show_default=True, metavar="SCENARIO", help="Whose values to start from.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="The new file.  [default: stdout]")
def init(like: str, out: Path | None) -> None:
    """Print a scenario with every key, each with its meaning and default, ready to edit and `moesim run`."""
    from moesim.report.template import template
    from moesim.studies import load

    deliver(template(load(like).document.data), out)
