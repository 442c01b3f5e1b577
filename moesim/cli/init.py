"""`moesim init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--like", default="demo-qwen3", show_default=True, metavar="SCENARIO", help="Whose values to start from.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="The new file.  [default: stdout]")
def init(like: str, out: Path | None) -> None:
    """Print a scenario with every key, each with its meaning and default, ready to edit and `moesim run`."""
    from moesim import atomic
    from moesim.errors import BadInput
    from moesim.report.template import template
    from moesim.studies import load

    text = template(load(like).document.data)
    if out is None:
        print(text, end="")
    elif out.exists():
        raise BadInput("is there already", where=out, way_out="another name")
    else:
        atomic.write(out, text)
        print(out)
