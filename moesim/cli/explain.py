"""`moesim explain`."""

from __future__ import annotations

import click

from moesim.cli.options import json_option, print_json, text_stream


@click.command()
@click.argument("run")
@json_option
def explain(run: str, as_json: bool) -> None:
    """Where did the time of RUN go? A folder, a result.json, or the first digits of a hash under ./runs."""
    from moesim.report import stored, tables

    found = stored.open_run(run)
    tables.show(tables.explain_text(found.document, found.pictures), text_stream(as_json))
    if as_json:
        print_json({**found.document, "words": found.pictures["words"]})
