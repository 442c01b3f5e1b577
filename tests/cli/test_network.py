"""The network from the command line: latency, the clock's range, levels, shared uplinks, by hand and by laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

HALVES = """moesim_topology: 1
name: halves
device:
  name: toy
  memory: {value: "80 GB", source: a toy}
  memory_bandwidth: {value: "3 TB/s", source: a toy}
  sms: {value: 100, source: a toy}
  flops: {bf16: {value: "900 TFLOP/s", source: a toy}}
node:
  gpus: 1
  nvlink: {value: "400 GB/s", source: a toy}
  nic: {value: "50 GB/s", source: a toy, latency: LATENCY}
fabric: {kind: leaves, nodes: 4, nodes_per_leaf: 2}
"""
TINY = (
    "cluster.topology=halves.yaml", "cluster.nodes=4", "parallel.data_parallel_size=4",
    "parallel.expert_parallel_size=4", "routing={balanced: true}", "overlap.shared_expert=false", "costs=h100_sxm",
)  # fmt: skip


def played(moesim: Moesim, *changes: str) -> dict[str, float]:
    """Metrics and parts of the demo on the toy, in one."""
    done = moesim("run", "demo-tiny", *(part for change in changes for part in ("--set", change)), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    values: dict[str, float] = {name: one["value"] for name, one in found["metrics"].items()}
    values.update(found["breakdown"])
    return values


@pytest.mark.parametrize("level", ["fluid", "port_load"])
def test_a_wan_of_500_ms_is_49_crossings_slower_than_one_of_10_ms(moesim: Moesim, level: str) -> None:
    steps = []
    for latency in ("0 ms", "10 ms", "500 ms"):
        Path("halves.yaml").write_text(HALVES.replace("LATENCY", latency), encoding="utf-8")
        steps.append(played(moesim, *TINY, f"network.level={level}")["step_time_s"])
    crossings = (steps[1] - steps[0]) / 10e-3
    assert (
        crossings == pytest.approx(round(crossings), abs=0.2) and crossings > 1
    )  # compute of microseconds hides little
    assert steps[2] - steps[1] == pytest.approx(round(crossings) * 490e-3, rel=1e-3)


def test_stated_latency_is_said_to_come_on_top(moesim: Moesim) -> None:
    Path("halves.yaml").write_text(HALVES.replace("LATENCY", "10 ms"), encoding="utf-8")
    done = moesim("run", "demo-tiny", *(part for change in TINY for part in ("--set", change)))
    text = " ".join((done.out + done.err).split())
    assert "links state a latency, up to 10 ms from GPU to GPU: it comes on top" in text


@pytest.mark.parametrize("level", ["auto", "fluid", "port_load"])
@pytest.mark.parametrize("efficiency", ["1.0e-9", "1.0e-12", "1.0e-300"])
def test_a_time_beyond_the_clock_is_refused_with_its_link(moesim: Moesim, efficiency: str, level: str) -> None:
    Path("halves.yaml").write_text(HALVES.replace("LATENCY", "0 ms"), encoding="utf-8")
    changes = (*TINY, f"network.efficiency={efficiency}", f"network.level={level}", "batch.tokens_per_gpu=65536")
    done = moesim("run", "demo-tiny", *(part for change in changes for part in ("--set", change)))
    assert done.code == 2
    assert "link gpu" in done.err and "beyond the range of the clock" in done.err and "Try:" in done.err


def test_slower_links_never_make_a_step_faster(moesim: Moesim) -> None:
    Path("halves.yaml").write_text(HALVES.replace("LATENCY", "0 ms"), encoding="utf-8")
    for level in ("auto", "port_load"):
        steps = [
            played(moesim, *TINY, f"network.efficiency={share}", f"network.level={level}")["step_time_s"]
            for share in ("1", "0.5", "0.01", "1.0e-5")
        ]
        assert steps == sorted(steps) and steps[0] < steps[-1]


@pytest.mark.parametrize("level", ["auto", "port_load"])
def test_oversubscription_costs_time_and_no_link_is_used_beyond_its_rate(moesim: Moesim, level: str) -> None:
    Path("halves.yaml").write_text(HALVES.replace("LATENCY", "0 ms"), encoding="utf-8")
    network = (*TINY, "batch.tokens_per_gpu=8192", "network.efficiency=0.001", f"network.level={level}")
    plain, halved, quartered = (played(moesim, *network, f"cluster.oversubscription={ratio}") for ratio in (1, 2, 4))
    assert plain["step_time_s"] < halved["step_time_s"] < quartered["step_time_s"]
    for one in (plain, halved, quartered):
        assert one["hottest_link_utilisation"] <= 1.0


def test_a_step_is_played_by_the_fluid_network_and_a_comparison_estimates_it(moesim: Moesim) -> None:
    assert played(moesim)["contention_s"] is not None
    done = moesim("compare", "demo-tiny", "--set", "batch.tokens_per_gpu=64", "--seeds", "2", "--json")
    found = json.loads(done.out)
    assert found["provenance"]["base"]["player"] == "evaluate"
    assert found["provenance"]["base"]["contention"].startswith("estimated: ")


def test_two_groups_of_a_dragonfly_gain_from_going_round(moesim: Moesim) -> None:
    """Two of five groups talk: the minimal way has their one link, Valiant's those of three other groups too."""
    shape = ("cluster={topology: dragonfly, nodes: 20}", "parallel={data_parallel_size: 64, expert_parallel_size: 64}")
    given = (
        *shape,
        "experts={placement: greedy, redundant: 32}",
        "comm.dispatch=nccl",
        "batch={phase: prefill, tokens_per_gpu: 512, context: 64}",
    )
    steps = []
    for routing in ("minimal", "valiant"):
        changes = [part for text in (*given, f"cluster.routing={routing}") for part in ("--set", text)]
        done = moesim("run", "demo-tiny", "--seed", "0", "--json", *changes)
        assert done.code == 0, done.err
        steps.append(json.loads(done.out)["metrics"]["step_time_s"]["value"])
    assert steps[1] < steps[0]
