"""`moesim list`."""

from __future__ import annotations

import sys

import click

from moesim.cli.options import json_option, print_json


@click.command("list")
@click.argument("kind", required=False)
@json_option
def list_(kind: str | None, as_json: bool) -> None:
    """What can be named in a scenario: all kinds, or one KIND (scenarios, models, topologies, ...)."""
    from moesim.errors import unknown_name
    from moesim.report import tables
    from moesim.report.catalogue import catalogue

    known = catalogue()
    if kind is not None and kind not in known:
        raise unknown_name("kind", kind, known)
    chosen = known if kind is None else {kind: known[kind]}
    if as_json:
        print_json({name: dict(rows) for name, rows in chosen.items()})
    else:
        tables.show(tables.list_text(chosen), sys.stdout)
