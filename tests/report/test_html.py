"""The page holds the documents unchanged, needs nothing from anywhere, and cannot be broken by a name."""

from __future__ import annotations

import json
import re
from typing import Any

from moesim.report.html import page

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


def test_plotly_stands_there_once_and_in_full(document: dict[str, Any], drawn: dict[str, Any]) -> None:
    text = page([(document, drawn), (document, drawn)])
    assert len(re.findall(r"\* plotly\.js v", text)) == 1
    assert '"waterfall"' in text
