"""The pages of `moesim place --report`, each one file: the table, and load, traffic, replicas and moves as pictures; of
a history its regimes, each window under each way to follow the load, and what moves.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from moesim.report.html import PAGE


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
    data = json.dumps(content, allow_nan=False)
    drawn = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in ("panels.js", script))
    return Template((PAGE / "trace.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        data=data.replace("<", "\\u003c"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=drawn,
    )
