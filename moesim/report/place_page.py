"""The pages of `moesim place --report`, each one file: the table, and load, traffic, replicas and moves as pictures; of
a history its regimes, each window under each way to follow the load, and what moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.report.drawing import panels_of


def place_page(document: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """A `moesim place --json` document and its pictures -> a self-contained HTML page; both stand in it as JSON."""
    told = document["provenance"]
    title = f"moesim place: {told['model']} on {told['gpus']} GPUs"
    return _page(title, "place.js", {"document": document, "pictures": pictures})


def history_page(document: Mapping[str, Any]) -> str:
    """A `moesim place --history --json` document -> a self-contained HTML page, in which it stands as JSON."""
    told = document["provenance"]
    title = f"moesim place --history: {len(told['windows'])} windows on {told['gpus']} GPUs"
    return _page(title, "history.js", {"document": document})


def _page(title: str, script: str, content: Mapping[str, Any]) -> str:
    return panels_of(title, content, script)
