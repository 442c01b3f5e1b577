"""Faults from the command line: what is lost is not throughput, who is on a detour, what dies with a switch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

SMALL = ("nic-fault-ep16", "batch.tokens_per_gpu=512", "batch.context=512")
TOY = (
    "demo-tiny", "cluster.nodes=2", "parallel.data_parallel_size=16", "parallel.expert_parallel_size=16",
    "batch.tokens_per_gpu=1024", "cluster.routing=ecmp", "cluster.spines=2",
)  # fmt: skip


def played(moesim: Moesim, scenario: tuple[str, ...], faults: str) -> dict[str, Any]:
    changes = (*scenario[1:], f"faults=[{faults}]")
    done = moesim("run", scenario[0], *(part for change in changes for part in ("--set", change)), "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found | {name: one["value"] for name, one in found["metrics"].items()}


def hot(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {spot["link"]: spot for spot in found["provenance"]["congestion"]["hot_spots"]}


def carried(found: dict[str, Any]) -> dict[str, int]:
    links = found["provenance"]["congestion"]["links"]
    return dict(zip(links["link"], links["bytes"], strict=True))


def capacities(found: dict[str, Any]) -> dict[str, float]:
    links = found["provenance"]["congestion"]["links"]
    return dict(zip(links["link"], links["capacity"], strict=True))


def test_tokens_that_lost_rows_are_no_throughput(moesim: Moesim) -> None:
    """GPUs 3 and 11 share the rail of the dead port: over 48 layers each of their 512 tokens has rows on it. All other
    flows go on, so that the step takes as long as before.
    """
    plain = played(moesim, SMALL, "")
    struck = played(moesim, SMALL, "{at: 0 s, link: node0/nic3, then: abort}")
    assert struck["tokens_lost"] == 2 * 512
    assert struck["step_time_s"] == pytest.approx(plain["step_time_s"], rel=0.01)
    assert struck["tokens_per_s"] == pytest.approx((16 - 2) * 512 / struck["step_time_s"])
    assert struck["tokens_per_s"] < plain["tokens_per_s"]
    assert any("at most 1024 of 8192 tokens lost rows in aborted transfers (12.5%)" in w for w in struck["warnings"])


def test_a_detour_names_both_senders_and_holds_the_kernels_rate(moesim: Moesim) -> None:
    """The next GPU's port carries its own bytes and as many of its neighbour's, no faster than DeepEP sends."""
    found = played(moesim, SMALL, "{at: 0 s, link: gpu3/nic_out, then: reroute}")
    spot = hot(found)["gpu4/nic_out (deepep_normal)"]
    assert {sender["rank"] for sender in spot["senders"]} == {3, 4}
    assert [sender["share"] for sender in spot["senders"]] == pytest.approx([0.5, 0.5], abs=0.02)
    assert spot["capacity"] == capacities(found)["gpu0/nic_out (deepep_normal)"] < 49.5e9
    assert spot["bytes"] / spot["capacity"] <= found["step_time_s"]
    assert not [link for link in carried(found) if link.startswith("gpu3/nic_out")]


def test_a_slowed_link_is_judged_by_the_rate_it_has_left(moesim: Moesim) -> None:
    slow = played(moesim, SMALL, "{at: 0 s, link: gpu0/nic_out, factor: 0.25}")
    spot = hot(slow)["gpu0/nic_out (deepep_normal)"]
    assert spot["capacity"] == pytest.approx(capacities(slow)["gpu1/nic_out (deepep_normal)"] / 4)
    assert spot["utilisation"] == pytest.approx(spot["bytes"] / (spot["capacity"] * slow["step_time_s"]))
    assert spot["utilisation"] == slow["hottest_link_utilisation"] <= 1


def test_flows_of_a_dead_spine_hash_over_what_is_left(moesim: Moesim) -> None:
    plain, struck = played(moesim, TOY, ""), played(moesim, TOY, "{at: 0 s, link: spine1, then: reroute}")
    before, after = carried(plain), carried(struck)
    for leaf in range(8):
        assert after[f"leaf{leaf}/up0"] == before[f"leaf{leaf}/up0"] + before[f"leaf{leaf}/up1"]
        assert f"leaf{leaf}/up1" not in after
    assert struck["step_time_s"] > plain["step_time_s"]


def test_what_nothing_leads_round_is_refused_with_the_way_out(moesim: Moesim) -> None:
    fault = "faults=[{at: 0 s, link: node0, then: reroute}, {at: 0 s, link: gpu3, then: reroute}]"
    done = moesim("run", TOY[0], *(part for change in (*TOY[1:], fault) for part in ("--set", change)))
    assert done.code == 2
    assert "no way round gpu3: gpu3 is cut off without it" in done.err and "then: abort" in done.err


@pytest.mark.parametrize("then", ["abort", "reroute", "stall, until: 3 ms"])
@pytest.mark.parametrize("link", ["gpu3/nic", "leaf0", "spine0", "gpu5/nvlink_down"])
def test_a_fault_never_raises_throughput(moesim: Moesim, link: str, then: str) -> None:
    if link == "gpu5/nvlink_down" and then == "reroute":
        link = "leaf5/up0"
    plain, struck = played(moesim, TOY, ""), played(moesim, TOY, f"{{at: 50 us, link: {link}, then: {then}}}")
    assert struck["tokens_per_s"] <= plain["tokens_per_s"] * (1 + 1e-6)
    assert struck["hottest_link_utilisation"] <= 1 + 1e-9
