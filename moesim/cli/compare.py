"""`moesim compare`."""

from __future__ import annotations

import sys

import click

from moesim.cli.options import json_option, overrides_option, print_json, text_stream


@click.command()
@click.argument("base")
@click.option("--with", "other", metavar="SCENARIO", help="Compare with this one.  [default: BASE with the changes]")
@overrides_option
@click.option("--seeds", type=click.IntRange(2, 1000), default=5, show_default=True, help="Paired runs of each.")
@json_option
def compare(base: str, other: str | None, overrides: tuple[str, ...], seeds: int, as_json: bool) -> None:
    """Run BASE and a variant of it with the same seeds: steps, each of which draws one error of every family of costs
    for both, or served requests, which are the same for both. Pipelined training steps are played once: nothing of
    them is drawn; the trials of their runs are paired.

    `--set` changes the variant only. The interval is Student's over the paired differences.
    """
    if other is None and not overrides:
        raise click.UsageError("give --with SCENARIO or --set KEY=VALUE", click.get_current_context())
    from moesim.report import tables
    from moesim.report.progress import told
    from moesim.studies import compare as compare_scenarios

    with told(sys.stderr, f"moesim compare {base}"):
        document = compare_scenarios(base, other, seeds, overrides=overrides).to_json()
    tables.show(tables.comparison_table(document), text_stream(as_json))
    if as_json:
        print_json(document)
