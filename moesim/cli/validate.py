"""`moesim validate`."""

from __future__ import annotations

from pathlib import Path

import click

from moesim.cli.options import json_option, print_json, text_stream


@click.command()
@click.argument("suite")
@click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help="Measurements.  [default: those shipped]")
@json_option
def validate(suite: str, data: Path | None, as_json: bool) -> None:
    """Print how far predictions are from published measurements. SUITE: see `moesim list 'validation suites'`."""
    from moesim.report import tables
    from moesim.studies.validation import validate as measure

    document = measure(suite, data).to_json()
    tables.show(tables.validation_text(document), text_stream(as_json))
    if as_json:
        print_json(document)
