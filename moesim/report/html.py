"""One self-contained HTML page of one or several runs: it draws itself from the JSON documents that stand in it.

plotly.js stands in the page once and in full: the smaller cartesian bundle draws trace types it lacks as lines, without
an error. The page's content policy forbids every request to anywhere.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from moesim.errors import BadInput

SERVE = "serve"  # provenance.kind of a serving run
PAGE = Path(__file__).parent / "page"


def page(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """(JSON document, pictures) of each run -> the text of the page. Raises BadInput for serving runs among others."""
    if serving := [run for run in runs if run[0]["provenance"].get("kind") == SERVE]:
        if len(runs) > 1:
            raise BadInput("a page shows several steps, or one serving run", way_out="one run a page")
        return serve_page(*serving[0])
    names = ", ".join(str(pictures["name"]) for _, pictures in runs)
    return Template(_part("page.html")).substitute(
        title=html.escape(f"moesim: {names}"),
        style=_part("page.css"),
        data="\n".join(_script("result", document) + _script("pictures", drawn) for document, drawn in runs),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=_part("page.js"),
    )  # fmt: skip


def serve_page(document: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """A serving run's document and pictures -> a self-contained page; both stand in it as JSON."""
    data = json.dumps({"document": document, "pictures": pictures}, allow_nan=False)
    return Template(_part("trace.html")).substitute(
        title=html.escape(f"moesim: {pictures['name']}"),
        style=_part("page.css"),
        data=data.replace("<", "\\u003c"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=_part("panels.js") + _part("serve.js"),
    )


def _part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _script(kind: str, value: Mapping[str, Any]) -> str:
    """JSON in which no text can end the script element."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}">{text}</script>'
