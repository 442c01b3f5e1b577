"""`moesim validate`."""

from __future__ import annotations

from pathlib import Path

import click

from moesim.cli.options import json_option, print_json, text_stream

ALL = "all"


@click.command()
@click.argument("suite")
@click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help="Measurements.  [default: those shipped]")
@click.option("--steps", is_flag=True, help="With `all`: play the published scenarios too, which takes minutes.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write a CSV with a row a measurement; not of `all`."
)
@json_option
def validate(suite: str, data: Path | None, steps: bool, out: Path | None, as_json: bool) -> None:
    """Print how far predictions are from published measurements. SUITE: see `moesim list 'validation suites'`.

    `all` names every operator that a scenario can reach, with the figure that stands beside it, or `no figure`.
    """
    from moesim import atomic
    from moesim.report import tables
    from moesim.report.validation_tables import rows_csv, serving_text, training_text
    from moesim.studies.validation import validate as measure
    from moesim.studies.validation import validate_all

    if suite == ALL and data is not None:
        raise click.UsageError("all reads the shipped measurements: --data is for one suite")
    if steps and suite != ALL:
        raise click.UsageError("--steps is for `validate all`")
    if out is not None and suite == ALL:
        raise click.UsageError("--out is for one suite")
    document = (validate_all(steps=steps) if suite == ALL else measure(suite, data)).to_json()
    drawn = {ALL: tables.coverage_text, "serving": serving_text, "training": training_text}
    draw = drawn.get(suite, tables.validation_text)
    tables.show(draw(document), text_stream(as_json))
    if out is not None:
        atomic.write(out, rows_csv(document))
    if as_json:
        print_json(document)
