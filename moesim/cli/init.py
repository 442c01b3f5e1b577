"""`moesim init`."""

from __future__ import annotations

from pathlib import Path

import click

from moesim.cli.options import deliver


@click.command()
@click.option("--like", default="demo-qwen3", show_default=True, metavar="SCENARIO", help="Whose values to start from.")
@click.option("--router", metavar="NAME", help="Routing by this router, with all its keys.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="The new file.  [default: stdout]")
def init(like: str, router: str | None, out: Path | None) -> None:
    """Print a scenario with every key, each with its meaning and default, ready to edit and `moesim run`."""
    from moesim.report.template import template
    from moesim.studies import load
    from moesim.studies.serving import is_serving, load_serving
    from moesim.studies.training import is_training, load_training

    overrides = [f"routing={{router: {router}}}"] if router else []
    if is_training(like):
        document = load_training(like, overrides).document
    else:
        document = (load_serving(like, overrides).step if is_serving(like) else load(like, overrides)).document
    deliver(template(document.data), out)
