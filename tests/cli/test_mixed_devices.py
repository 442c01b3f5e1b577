"""A topology file whose nodes have GPUs of two kinds, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim import shipped
from tests.cli.conftest import Moesim


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.yaml"
    text = shipped.names("topologies", ".yaml")["dgx-h100"].read_text().replace("  nodes: 1\n", "  nodes: 2\n")
    path.write_text(text + "others:\n- {device: H200-SXM-141GB, nodes: [1]}\n")
    return path


def test_the_kinds_are_shown(moesim: Moesim, mixed: Path) -> None:
    done = moesim("topo", "show", str(mixed))
    assert done.code == 0 and "kinds: 8 H100-SXM5-80GB, 8 H200-SXM-141GB" in done.out
    written = moesim("topo", "export", str(mixed), "--format", "graphml")
    assert written.code == 0 and written.out.count("H200-SXM-141GB") == 8


@pytest.mark.parametrize("scenario", ["demo-serve", "mixtral-train-pp4"])
def test_what_knows_one_kind_refuses_several(moesim: Moesim, mixed: Path, scenario: str) -> None:
    done = moesim("run", scenario, "--set", f"cluster.topology={mixed}")
    assert done.code == 2 and "GPUs of several kinds are played in mode: step" in done.err
