"""`moesim gallery` and `moesim trace route`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Moesim


def test_command(moesim: Moesim, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = moesim("gallery", "S053", "S062", "--json", f"--report={page}")
    found = json.loads(done.out)
    metrics = {name: one["value"] for name, one in found["metrics"].items()}
    assert metrics == {"rows_working": 1, "rows_failing": 0, "rows_needing": 1}
    assert found["rows"]["S062"]["needs"] == ["F30", "F35"]
    assert "CARROT" in page.read_text()
    assert "gallery: 1" in moesim("gallery", "S053", "--show").out


def test_a_router_becomes_a_trace(moesim: Moesim, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    moesim("trace", "route", "demo-tiny", "-o", str(out))
    found = json.loads(moesim("trace", "stats", str(out), "--json").out)
    assert found["metrics"]["tokens"]["value"] == 8 * 128
    routing = "routing={router: soft_moe}"
    refused = moesim("trace", "route", "demo-tiny", "--set", routing, "-o", str(tmp_path / "u.parquet"))
    assert refused.code == 2
    assert "slots" in refused.err
