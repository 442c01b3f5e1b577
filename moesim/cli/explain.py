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

    Causes (uneven routing, the network, contention, transfers that nothing hides) are taken away one by one and
    together. Changes (schedule, all-to-all, placement, slower links ...) are played, not guessed, and kept beside the
    run.
    """
    from rich.console import Group
    from rich.text import Text

    from moesim.report import stored, tables
    from moesim.report.explain import advice as sentences
    from moesim.report.serve_tables import serve_text
    from moesim.report.train_tables import train_text

    found = stored.open_run(run)
    tried = _tried(found) if advice else []
    told = sentences(found.document, tried)
    if (kind := found.document["provenance"].get("kind")) in ("serve", "train"):
        whole = {"serve": serve_text, "train": train_text}[kind](found.document)
        text = Group(whole, *(Text(f"- {sentence}") for sentence in told))
    else:
        text = tables.explain_text(found.document, found.pictures, told)
    tables.show(text, text_stream(as_json))
    if as_json:
        print_json({**found.document, "words": [*found.pictures.get("words", []), *told], "tried": tried})


def _tried(run: StoredRun) -> list[dict[str, Any]]:
    """Changes that were played before, or are now, and kept."""
    from moesim import yamlfile
    from moesim.report import stored
    from moesim.report.progress import told
    from moesim.studies import load
    from moesim.studies.advice import advise
    from moesim.studies.changes import advise_run

    known = stored.read_advice(run)
    if known is None:
        with told(sys.stderr, "moesim explain") as tell:
            told_by, path = run.document["provenance"], run.folder / stored.SCENARIO
            if told_by.get("kind") in ("serve", "train"):
                found = advise_run(yamlfile.read_yaml(path), int(told_by.get("seeds", [0])[0]), tell)
            else:
                found = advise(load(path), int(told_by["seed"]), tell)
        known = [one.to_json() for one in found]
        stored.save_advice(run, known)
    return known
