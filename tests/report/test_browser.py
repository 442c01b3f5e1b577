"""Headless Chromium draws the page; what it shows are the values of `--json`, to the last digit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from moesim.report.html import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=20000", "--window-size=1300,2400",
)  # fmt: skip
LINK_COLUMNS = ("utilisation", "bytes", "busy_s", "saturated_s")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


class Page(HTMLParser):
    """Collects <data> elements, and the ids of figures with a drawing in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.data: dict[tuple[str, str], str] = {}
        self.figures: dict[str, int] = {}
        self._figure = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "data":
            self.data[given["data-kind"], given["data-name"]] = given["value"]
        if "figure" in given.get("class", "").split():
            self._figure = given["id"]
        if tag == "path" and self._figure:
            self.figures[self._figure] = self.figures.get(self._figure, 0) + 1


def opened(text: str, folder: Path) -> tuple[Page, str]:
    """The page after its scripts ran."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [str(CHROMIUM), *QUIET, *sandbox, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Page(done.stdout), done.stdout


def test_every_value_on_the_page_is_the_document_s(
    document: dict[str, Any], drawn: dict[str, Any], tmp_path: Path
) -> None:
    shown, _ = opened(page([(document, drawn)]), tmp_path)
    for name, metric in document["metrics"].items():
        assert json.loads(shown.data["metric", name]) == metric["value"], name
    for name, seconds in document["breakdown"].items():
        assert json.loads(shown.data["breakdown", name]) == seconds, name
    cards = {name: value for (kind, name), value in shown.data.items() if kind == "card"}
    assert cards
    spots = {spot["link"]: spot for spot in document["provenance"]["congestion"]["hot_spots"]}
    links = {name: value for name, value in shown.data.items() if name[0].startswith("link-")}
    assert len(links) == sum(spot[key] is not None for spot in spots.values() for key in LINK_COLUMNS)
    assert all(json.loads(value) == spots[name][kind.removeprefix("link-")] for (kind, name), value in links.items())
    assert all(json.loads(value) == document["metrics"][name]["value"] for name, value in cards.items())
    ends = {(kind, name): value for (kind, name), value in shown.data.items() if kind in ("low", "high")}
    assert ("low", "step_time_s") in ends
    assert all(json.loads(value) == document["metrics"][name][kind] for (kind, name), value in ends.items())


def test_every_picture_is_drawn(document: dict[str, Any], drawn: dict[str, Any], tmp_path: Path) -> None:
    shown, text = opened(page([(document, drawn)]), tmp_path)
    assert all(shown.figures.get(name, 0) >= 2 for name in ("ladder", "gantt", "experts", "traffic", "topology")), (
        shown.figures
    )
    assert shown.figures["gantt"] >= len(drawn["gantt"]["row"])
    assert all(warning in re.sub(r"&\w+;", "", text) for warning in document["warnings"] if "&" not in warning)


def test_two_runs_stand_side_by_side(document: dict[str, Any], drawn: dict[str, Any], tmp_path: Path) -> None:
    other = {**document, "metrics": {**document["metrics"], "step_time_s": {"value": 0.123456789, "unit": "s"}}}
    shown, _ = opened(page([(document, drawn), (other, {**drawn, "name": "other"})]), tmp_path)
    assert json.loads(shown.data["metric-1", "step_time_s"]) == 0.123456789
    assert json.loads(shown.data["metric-0", "step_time_s"]) == document["metrics"]["step_time_s"]["value"]
