"""The small verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from moesim import shipped
from moesim.cli.verbs import LazyGroup
from moesim.hardware import known_topologies

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


def test_list_shows_all_kinds_or_one(moesim: Moesim) -> None:
    assert {"scenarios", "models", "topologies"} <= set(json.loads(moesim("list", "--json").out))
    assert "dgx-h100" in moesim("list", "topologies").out
    assert "zb-h1" in moesim("list", "pipelines").out, "descriptions of keys send there"
    assert "did you mean 'models'" in moesim("list", "model").err


def test_init_writes_a_scenario_that_runs_and_never_overwrites(moesim: Moesim) -> None:
    assert moesim("init", "--like", "demo-tiny", "-o", "mine.yaml").code == 0
    assert moesim("run", "mine.yaml").code == 0
    assert moesim("init", "-o", "mine.yaml").code == 2
    assert moesim("init").out.startswith("# A moesim scenario")


def test_schema_documents_every_key(moesim: Moesim) -> None:
    schema = json.loads(moesim("schema").out)
    assert schema["title"] == "moesim scenario"
    assert schema["additionalProperties"] is False
    assert "tokens_per_gpu" in schema["$defs"]["BatchSection"]["properties"]
    names, *mappings = schema["$defs"]["Router"]["anyOf"]
    assert len(mappings) == len(names["enum"]) and "top_p" in names["enum"]
    (top_p,) = (one for one in mappings if one["properties"]["name"]["const"] == "top_p")
    assert "probabilities" in top_p["properties"]["p"]["description"]


def test_schema_knows_the_files_of_sweeps_and_placements(moesim: Moesim) -> None:
    assert set(json.loads(moesim("schema", "--mode", "sweep").out)["properties"]["design"]["enum"]) == {
        "cartesian", "zipped", "random", "latin",
    }  # fmt: skip
    assert "gpus" in json.loads(moesim("schema", "--mode", "place").out)["required"]


@pytest.mark.parametrize("verb", ["show", "validate"])
def test_topo_tells_about_a_cluster(moesim: Moesim, verb: str) -> None:
    done = moesim("topo", verb, "dgx-h100", "--nodes", "2")
    assert done.code == 0
    assert "dgx-h100" in done.out
    assert moesim("topo", verb, "dgx-h10").code == 2


def test_topologies_of_thousands_of_gpus_and_of_racks_in_racks(moesim: Moesim) -> None:
    """8,192 GPUs have no table of paths; 576 in one NVLink domain meet over trunks of 72 x 900 GB/s."""
    large = moesim("topo", "validate", "dgx-h100", "--nodes", "1024")
    assert large.code == 0 and "8192 GPUs in 1024 nodes, every pair from the first and the last node" in large.out
    assert "one flow between nodes reaches 50 GB/s" in large.out
    assert "nodes: 8192" in moesim("topo", "validate", "dgx-h100", "--nodes", "20000").err
    assert "nvlink_trunk  16 x 64.8 TB/s" in moesim("topo", "show", "gb200-nvl576").out


def test_a_step_over_two_planes_takes_as_long_as_over_one(moesim: Moesim) -> None:
    """Each plane has half of every port and half of every message; sprayed spines are as good as pooled ones."""
    text = known_topologies()["dgx-h100"].read_text()
    seconds = []
    for change in ("", ", planes: 2", ", routing: spray, spines: 4"):
        Path("t.yaml").write_text(f"{text[: text.index('fabric:')]}fabric: {{kind: rails, nodes: 2{change}}}\n")
        sizes = [f"parallel.{name}_parallel_size=16" for name in ("data", "expert")]
        sets = [*sizes, "cluster.topology=t.yaml", "cluster.nodes=2", "network.level=port_load"]
        done = moesim("run", "demo-qwen3", "--json", *(word for one in sets for word in ("--set", one)))
        assert done.code == 0, done.err
        seconds.append(json.loads(done.out)["metrics"]["step_time_s"]["value"])
    assert seconds[1:] == pytest.approx([seconds[0]] * 2, rel=1e-6)


def test_topo_exports_and_imports_what_it_exported(moesim: Moesim) -> None:
    written = moesim("topo", "export", "dgx-h100", "--nodes", "2", "--format", "astra-sim", "-o", "net.yml")
    assert (written.code, written.out) == (0, "net.yml\n")
    assert "note: latency is 0 ns" in written.err
    assert moesim("topo", "import", "net.yml", "-o", "mine.yaml").code == 0
    assert "16 GPUs in 2 nodes" in moesim("topo", "validate", "mine.yaml").out
    assert moesim("topo", "import", "net.yml", "-o", "mine.yaml").code == 2
    assert "did you mean 'graphml'" in moesim("topo", "export", "dgx-h100", "--format", "graphm").err


def test_doctor_says_what_it_found(moesim: Moesim) -> None:
    done = moesim("doctor")
    assert "numpy" in done.out
    assert "topologies" in done.out


def test_every_verb_has_help(moesim: Moesim) -> None:
    for verb in LazyGroup().list_commands(click.Context(click.Command("moesim"))):
        assert moesim(verb, "--help").out.startswith("Usage:"), verb


def test_an_import_says_what_it_found_and_validate_compares_it(moesim: Moesim, tmp_path: Path) -> None:
    switch = '<nvlink target="0000:d0:00.0" count="18" tclass="0x068000"/>'
    slots = [f'<pci busid="0000:{10 + g}:00.0"><gpu dev="{g}" sm="90">{switch}</gpu></pci>' for g in range(8)]
    nets = [f'<net name="m{g}" dev="{g}" speed="400000"/>' for g in range(8)]
    cpu = f"<cpu>{''.join(slots)}<nic>{''.join(nets)}</nic></cpu>"
    (tmp_path / "topo.xml").write_text(f'<system version="1">{cpu}</system>')
    done = moesim("topo", "import", str(tmp_path / "topo.xml"), "-o", "mine.yaml")
    assert done.code == 0
    assert "found: 8 GPUs (H100-SXM5-80GB) in 1 nodes; per GPU and direction: nvlink 450 GB/s, nic 50 GB/s" in done.err
    beside = moesim("topo", "validate", "mine.yaml").out
    assert "nearest shipped system dgx-h100: the same rates" in beside
    text = Path("mine.yaml").read_text().replace("value: 450 GB/s", "value: 200 GB/s")
    Path("mine.yaml").write_text(text)
    assert "dgx-h100: nvlink 200 GB/s, there 450 GB/s" in moesim("topo", "validate", "mine.yaml").out


def test_a_list_of_devices_is_refused_with_the_way_to_say_it(moesim: Moesim) -> None:
    head, _, rest = shipped.shipped("topologies", "dgx-h100.yaml").read_text().partition("device:\n")
    kept = f"{head}device: [{{name: H100}}, {{name: H200}}]\nnode:{rest.partition('node:')[2]}"
    Path("mixed.yaml").write_text(kept)
    done = moesim("topo", "validate", "mixed.yaml")
    assert done.code == 2 and "mixed.yaml:4 device: is the kind of most nodes, this is a list of 2" in done.err
    assert "others: [{device: H200-SXM-141GB, nodes: [1]}]" in done.err
