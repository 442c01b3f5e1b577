"""`moesim compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from moesim.cli.options import (
    OptionalReport,
    command_line,
    json_option,
    overrides_option,
    print_json,
    text_stream,
)  # fmt: skip

PAGE: Final = "compare.html"


@click.command(cls=OptionalReport)
@click.argument("base")
@click.option("--with", "other", metavar="SCENARIO", help="Compare with this one.  [default: BASE with the changes]")
@overrides_option
@click.option("--both", multiple=True, metavar="KEY=VALUE", help="Override a key of both; may be repeated.")
@click.option("--seeds", type=click.IntRange(2, 1000), default=5, show_default=True, help="Paired runs of each.")
@click.option("--report", metavar="[=FILE]", help=f"Write an HTML page.  [default: {PAGE}]")
@json_option
def compare(
    base: str, other: str | None, overrides: tuple[str, ...], both: tuple[str, ...], seeds: int, report: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run BASE and a variant of it with the same seeds: steps, each of which draws one error of every family of costs
    for both, or served requests, which are the same for both. Pipelined training steps are played once: nothing of
    them is drawn; the trials of their runs are paired.

    `--set` changes the variant only, `--both` base and variant. The interval is Student's over the paired differences.
    """
    if other is None and not overrides:
        raise click.UsageError("give --with SCENARIO or --set KEY=VALUE", click.get_current_context())
    from moesim import atomic
    from moesim.report import tables
    from moesim.report.compare_page import compare_page
    from moesim.report.progress import told
    from moesim.studies import compare as compare_scenarios
    from moesim.studies.any_mode import load_any
    from moesim.studies.load import as_yaml

    with told(sys.stderr, f"moesim compare {base}"):
        found = compare_scenarios(load_any(base, both), load_any(other or base, both), seeds, overrides=overrides)
    document = found.to_json()
    tables.show(tables.comparison_table(document), text_stream(as_json))
    if report is not None:
        files = {"base.yaml": base} | ({"variant.yaml": other} if other else {})
        command = command_line({"base": "base.yaml", "other": "variant.yaml"})
        path = Path(report or PAGE)
        atomic.write(path, compare_page(found, command, {name: as_yaml(one) for name, one in files.items()}))
        print(path, file=text_stream(as_json))
    if as_json:
        print_json(document)
