"""One self-contained HTML page of one or several runs: it draws itself from the JSON documents that stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moesim.errors import BadInput
from moesim.report.drawing import as_text, page_of, panels_of

SERVE, TRAIN = "serve", "train"  # provenance.kind of runs that have pages of their own


def page(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """(JSON document, pictures) of each run -> the text of the page. Raises BadInput for serving runs among others."""
    if serving := [run for run in runs if run[0]["provenance"].get("kind") == SERVE]:
        if len(runs) > 1:
            raise BadInput("a page shows several steps, or one serving run", way_out="one run a page")
        return serve_page(*serving[0])
    if any(run[0]["provenance"].get("kind") == TRAIN for run in runs):
        if len(runs) > 1:
            raise BadInput("a page shows several steps, or one training run", way_out="one run a page")
        return train_page(*runs[0])
    names = ", ".join(str(pictures["name"]) for _, pictures in runs)
    data = "\n".join(_script("result", document) + _script("pictures", drawn) for document, drawn in runs)
    return page_of(f"moesim: {names}", data, "figures.js", "page.js")


def serve_page(document: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """A serving run's document and pictures -> a self-contained page; both stand in it as JSON."""
    return panels_of(f"moesim: {pictures['name']}", {"document": document, "pictures": pictures}, "serve.js")


def train_page(document: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """The same of a pipelined training step."""
    return panels_of(f"moesim: {pictures['name']}", {"document": document, "pictures": pictures}, "train.js")


def _script(kind: str, value: Mapping[str, Any]) -> str:
    return f'<script type="application/json" class="{kind}">{as_text(value)}</script>'
