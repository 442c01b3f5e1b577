"""`moesim explain`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from moesim.cli.options import json_option, print_json, text_stream

if TYPE_CHECKING:
    from moesim.report.stored import StoredRun


@click.command()
@click.argument("run")
@click.option("--advice/--no-advice", default=True, show_default=True, help="Play the step again with changes made.")
@json_option
def explain(run: str, advice: bool, as_json: bool) -> None:
    """Where did the time of RUN go, and what would change it? A folder, a result.json, or the first digits of a hash.

    Changes (schedule, all-to-all, placement, slower links ...) are played, not guessed, and kept beside the run.
    """
    from moesim.errors import BadInput
    from moesim.report import stored, tables
    from moesim.report.explain import advice as sentences

    found = stored.open_run(run)
    if found.document["provenance"].get("kind") == "serve":
        raise BadInput("served requests: where their time went stands in its text and on its page", where=found.folder,
                       way_out=f"moesim report {found.folder}; explain takes runs of mode: step apart")  # fmt: skip
    tried = _tried(found) if advice else []
    told = sentences(found.document, tried)
    tables.show(tables.explain_text(found.document, found.pictures, told), text_stream(as_json))
    if as_json:
        print_json({**found.document, "words": [*found.pictures["words"], *told], "tried": tried})


def _tried(run: StoredRun) -> list[dict[str, Any]]:
    """Changes that were played before, or are now, and kept."""
    from moesim.report import stored
    from moesim.report.progress import told
    from moesim.studies import load
    from moesim.studies.advice import advise

    known = stored.read_advice(run)
    if known is None:
        with told(sys.stderr, "moesim explain") as tell:
            found = advise(load(run.folder / stored.SCENARIO), int(run.document["provenance"]["seed"]), tell)
        known = [one.to_json() for one in found]
        stored.save_advice(run, known)
    return known
