"""The page of a comparison: its numbers are the document's, what moved is drawn, and the command plays it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moesim.report.compare_page import compare_page
from moesim.studies import compare
from tests.report.test_browser import CHROMIUM, opened


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_numbers_are_the_document_s_and_what_moved_is_drawn(tmp_path: Path) -> None:
    found = compare("demo-tiny", seeds=2, overrides=["overlap.schedule=two_batch"])
    text = compare_page(found, "moesim compare base.yaml --set a=1", {"base.yaml": "name: demo-tiny"})
    shown, drawn = opened(text, tmp_path)
    for name, one in found.metrics.items():
        for kind in ("base", "variant", "value"):
            assert json.loads(shown.data[kind, name]) == getattr(one, kind), (kind, name)
    assert found.verdict() in drawn and "demo-tiny, changed" in drawn and "moesim compare base.yaml --set a=1" in drawn
    moved = [one for one in found.breakdown.values() if one and (one.base or one.variant)]
    assert len(shown.figures) == 2 and shown.figures["figure-0"] >= len(moved) + 2
