"""The page of `moesim place --report`: the table, and load, traffic, replicas and moves as pictures, in one file."""

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
    data = json.dumps({"document": document, "pictures": pictures}, allow_nan=False)
    script = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in ("panels.js", "place.js"))
    return Template((PAGE / "trace.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"moesim place: {told['model']} on {told['gpus']} GPUs"),
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        data=data.replace("<", "\\u003c"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=script,
    )
