"""A page as one file: its data, the drawing library, and the scripts that draw.

plotly.js stands in it once, packed: the cartesian bundle has all trace types that the scripts use (bar, heatmap,
scatter) and is a tenth of the whole library. The page's content policy forbids every request to anywhere.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from string import Template
from typing import Any, Final

PAGE: Final = Path(__file__).parent / "page"
BUNDLE: Final = "plotly-cartesian.min.js.gz"


def page_of(title: str, data: str, *scripts: str) -> str:
    """The text of a page. `data`: elements that the scripts read; scripts: names of files in `page/`."""
    return Template(part("page.html")).substitute(
        title=html.escape(title),
        style=part("page.css"),
        data=data,
        plotly=base64.b64encode((PAGE / BUNDLE).read_bytes()).decode(),
        script="\n".join(part(name) for name in scripts),
        loader=part("loader.js"),
    )


def panels_of(title: str, value: Any, script: str) -> str:
    """The text of a page that draws one document by panels. script: name of the file that does."""
    return page_of(title, one_document(value), "figures.js", "panels.js", script)


def one_document(value: Any) -> str:
    """The data of a page that draws one document."""
    return f'<script type="application/json" id="data">{as_text(value)}</script>'


def as_text(value: Any) -> str:
    """JSON in which no text can end the script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def part(name: str) -> str:
    """A file of the page's."""
    return (PAGE / name).read_text(encoding="utf-8")
