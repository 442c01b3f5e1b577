"""The page holds the documents unchanged, needs nothing from anywhere, and cannot be broken by a name."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

from moesim.report.drawing import PAGE
from moesim.report.html import page

AXES = {"linear", "log", "category", "date", "line"}  # kinds of axes and shapes, not of traces
SCRIPT = re.compile(r'<script type="application/json" class="(result|pictures)">(.*?)</script>', re.S)


def test_the_json_document_stands_in_the_page(document: dict[str, Any], drawn: dict[str, Any]) -> None:
    found = SCRIPT.findall(page([(document, drawn)]))
    assert [kind for kind, _ in found] == ["result", "pictures"]
    assert [json.loads(text) for _, text in found] == [document, drawn]


def test_nothing_is_fetched(document: dict[str, Any], drawn: dict[str, Any]) -> None:
    text = page([(document, drawn)])
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|img|iframe|link)[^>]*(src|href)=", text)


def test_a_name_cannot_end_a_script(document: dict[str, Any], drawn: dict[str, Any]) -> None:
    nasty = "</script><script>alert(1)</script>"
    text = page([(document, {**drawn, "name": nasty})])
    assert nasty not in text
    assert json.loads(SCRIPT.findall(text)[1][1])["name"] == nasty


def test_the_drawing_library_stands_there_once_and_packed(document: dict[str, Any], drawn: dict[str, Any]) -> None:
    text = page([(document, drawn), (document, drawn)])
    packed = re.findall(r'id="plotly">([^<]*)</script>', text)
    assert len(packed) == 1 and len(text) < 1_500_000
    library = gzip.decompress(base64.b64decode(packed[0])).decode()
    kinds = {kind for name in PAGE.glob("*.js") for kind in re.findall(r'type: "([a-z]+)"', name.read_text())}
    assert {"bar", "heatmap", "scatter"} <= kinds
    for kind in kinds - AXES:
        assert f'name:"{kind}"' in library, kind
