"""Headless Chromium draws the page; what it shows are the values of `--json`, to the last digit."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from moesim.report import html
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


def test_a_picture_s_numbers_are_a_table_that_opens(
    document: dict[str, Any], drawn: dict[str, Any], tmp_path: Path
) -> None:
    opens = "document.querySelectorAll('details.data').forEach((one) => (one.open = true))"
    clicked = f"<script>setTimeout(() => {opens}, 3000);</script></body>"
    _, shown = opened(page([(document, drawn)]).replace("</body>", clicked), tmp_path)
    tables = re.findall(r'<details class="data" open="">(.*?)</details>', shown, re.S)
    assert len(tables) >= 5  # a window of the step, experts, traffic, links, topology
    cells = [re.findall("<td[^>]*>([^<]*)</td>", row) for row in re.findall("<tr.*?</tr>", tables[2])]
    sent = {(int(row[0]), int(row[1])): float(row[2]) for row in cells if row}
    matrix = drawn["traffic"]["bytes"]
    assert sent == {(there, here): matrix[here][there] for here in range(len(matrix)) for there in range(len(matrix))}


def test_colours_of_parts_are_told_apart_by_every_eye(tmp_path: Path) -> None:
    """Viénot, Brettel and Mollon (1999): what deuteranopes see of them still differs, in both themes. 17 is what orange
    and yellow of Okabe and Ito's own colours have; red and pink of a common palette have 0.
    """
    style = (Path(html.__file__).parent / "page" / "page.css").read_text()
    names = ("ideal", "imbalance", "comm", "contention", "bubble", "other", "interference", "schedule", "fault")
    for number in (0, 1):
        colours = [re.findall(rf"--{name}: #([0-9a-f]{{6}})", style)[number] for name in names]
        seen = [_without_green(colour) for colour in colours]
        assert min(math.dist(a, b) for a, b in itertools.combinations(seen, 2)) > 15


def _without_green(colour: str) -> tuple[float, float, float]:
    """sRGB as a deuteranope sees it, CIE L*a*b*."""
    red, green, blue = ((int(colour[at : at + 2], 16) / 255) ** 2.2 for at in (0, 2, 4))
    both = 0.29275 * red + 0.70725 * green
    red, green, blue = both, both, -0.02234 * red + 0.02234 * green + blue
    white = (0.9505, 1.0, 1.089)
    xyz = (0.4124 * red + 0.3576 * green + 0.1805 * blue, 0.2126 * red + 0.7152 * green + 0.0722 * blue,
           0.0193 * red + 0.1192 * green + 0.9505 * blue)  # fmt: skip
    x, y, z = (max(one / most, 0) ** (1 / 3) for one, most in zip(xyz, white, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
