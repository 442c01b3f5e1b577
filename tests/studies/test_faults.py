"""Faults, weak fabrics and ECMP as keys of a scenario."""

from __future__ import annotations

import pytest

from moesim.errors import BadInput, Deadlock
from moesim.hardware import load_cluster
from moesim.studies import load, run
from moesim.studies.build import build
from moesim.studies.faults import LinkNames

TWO_NODES = [
    "cluster.nodes=2",
    "parallel.data_parallel_size=16",
    "parallel.expert_parallel_size=16",
    "batch.tokens_per_gpu=1024",
]


def seconds(*changes: str) -> float:
    return run("demo-tiny", overrides=[*TWO_NODES, *changes]).metrics["step_time_s"].value


def test_a_port_has_a_name_of_its_own_and_one_in_its_node() -> None:
    cluster = load_cluster("dgx-h100", nodes=3)
    names = LinkNames(cluster)
    found = [cluster.link_name[link] for link in names.find("node2/nic3", "here")]
    assert found == ["gpu19/nic_out", "gpu19/nic_in"]
    assert names.find("gpu19/nic", "here") == names.find("node2/nic3", "here")
    assert len(names.find("leaf3/up", "here")) == 1
    with pytest.raises(BadInput, match="here: no link 'node3/nic3'.*did you mean node2/nic3"):
        names.find("node3/nic3", "here")


def test_a_switch_stands_for_all_its_links() -> None:
    cluster = load_cluster("dgx-h100", nodes=2, routing="ecmp", spines=2)
    found = {cluster.link_name[link] for link in LinkNames(cluster).find("spine1", "here")}
    assert found == {f"leaf{leaf}/{way}1" for leaf in range(8) for way in ("up", "down")}


def test_ports_that_gpus_share_are_counted_in_their_node() -> None:
    cluster = load_cluster("l40s-pcie", nodes=2)
    links = LinkNames(cluster).find("node1/roce0", "here")
    assert [cluster.link_name[link] for link in links] == ["nic4/roce_out", "nic4/roce_in"]


def test_a_fault_in_the_step_is_why_the_fluid_network_is_played() -> None:
    result = run("demo-tiny", overrides=[*TWO_NODES, "faults=[{at: 100 us, link: node0/nic3, factor: 0.25}]"])
    assert result.provenance["player_reason"].startswith("a fault falls into the step")
    assert (result.breakdown["fault_s"] or 0.0) > 0
    assert sum(value or 0.0 for value in result.breakdown.values()) == pytest.approx(
        result.metrics["step_time_s"].value
    )


def test_a_detour_costs_less_than_waiting_for_the_repair() -> None:
    dead = "faults=[{{at: 100 us, link: node0/nic3, until: 5 ms, then: {}}}]"
    assert seconds() < seconds(dead.format("reroute")) < seconds(dead.format("stall"))


def test_what_happened_to_transfers_is_said() -> None:
    fault = "faults=[{at: 100 us, link: gpu3/nic_out, until: 1 ms}, {at: 9 s, rank: 3, factor: 0.5}]"
    warnings = " ".join(run("demo-tiny", overrides=[*TWO_NODES, fault]).warnings)
    assert "tasks stalled" in warnings and "1 come after the step has ended" in warnings


def test_a_slow_rank_keeps_everybody_waiting() -> None:
    assert seconds("faults=[{at: 0 s, rank: 5, factor: 0.5}]") > 1.2 * seconds()


def test_a_dead_port_that_nobody_repairs_is_a_deadlock_with_those_who_wait() -> None:
    with pytest.raises(Deadlock, match=r"deadlock: .*\(task \d+, layer \d\).* stalled by link gpu3/nic_out at 0 "):
        seconds("faults=[{at: 10 us, link: gpu3/nic_out}]")


def test_a_node_without_any_port_left_is_a_deadlock_not_an_endless_detour() -> None:
    dead = ", ".join(f"{{at: 0 s, link: node0/nic{port}, then: reroute}}" for port in range(8))
    with pytest.raises(Deadlock, match="stalled by link gpu0/nic_out"):
        seconds(f"faults=[{dead}]")


def test_a_fault_slows_what_a_kernel_reaches_too() -> None:
    fault = "faults=[{at: 0 s, link: gpu3/nic_out, factor: 0.5}]"
    built = build(load("demo-tiny", [*TWO_NODES, "comm.dispatch=deepep_normal", fault]), 0)
    struck = {row.name for row in built.faults}
    assert struck >= {"gpu3/nic_out", "gpu3/nic_out (deepep_normal)"}
    assert all(name.startswith("gpu3/nic_out") for name in struck)


def test_a_fabric_with_less_left_is_slower_and_says_so() -> None:
    weak = ["network.efficiency=0.5", "network.background=0.5"]
    result = run("demo-tiny", overrides=[*TWO_NODES, *weak])
    assert result.metrics["step_time_s"].value > seconds("network.efficiency=0.5") > seconds()
    assert any("have 0.25 of their rates" in warning for warning in result.warnings)


def test_ecmp_is_a_key_of_the_cluster() -> None:
    result = run("demo-tiny", overrides=[*TWO_NODES, "cluster.routing=ecmp", "cluster.spines=4"])
    assert result.provenance["player"] == "simulate"
    with pytest.raises(BadInput, match="matter to 'routing: ecmp' and spray"):
        seconds("cluster.spines=4")


def test_tokens_that_travel_send_less_back() -> None:
    result = run("demo-tiny", overrides=[*TWO_NODES, "comm.dispatch=exflow"])
    assert result.played.sent.sum() < run("demo-tiny", overrides=[*TWO_NODES, "comm.dispatch=nccl"]).played.sent.sum()
    assert any("exflow" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("{at: 1 ms, link: nic3}", "no link 'nic3'"),
        ("{at: 1 ms}", "either link or rank"),
        ("{at: 1 ms, link: gpu0/nic_out, rank: 1}", "either link or rank"),
        ("{at: 1, link: gpu0/nic_out}", "has no unit"),
        ("{at: 1 ms, link: gpu0/nic_out, factor: -1}", "greater than or equal to 0"),
        ("{at: 1 ms, link: gpu0/nic_out, until: 1 ms}", "until has to come after at"),
        ("{at: 1 ms, link: gpu0/nic_out, factor: 0.5, then: abort}", "is for a dead link"),
        ("{at: 1 ms, link: gpu0/nic_out, detour: [leaf0/up]}", "needs then: reroute"),
        ("{at: 1 ms, link: gpu0, then: reroute}", "no way round gpu0: gpu0 is cut off"),
        ("{at: 1 ms, link: gpu0/nic_out, then: reroute, detour: [leaf0/up]}", "has a gap: it is at gpu0, and leaf0/up"),
        ("{at: 1 ms, link: leaf0/up, then: reroute, detour: [leaf0/down]}", "has a gap"),
        ("{at: 1 ms, link: gpu0/nic_out, then: reroute, detour: [gpu0/nvlink_up]}", "the detour ends at node0"),
        ("{at: 1 ms, link: gpu0/nic, then: reroute, detour: [leaf0/up]}", "for one direction"),
        ("{at: 1 ms, link: gpu0/nic_out, then: reroute, detour: [gpu1/nic]}", "is two links"),
        ("{at: 1 ms, rank: 16, factor: 0.5}", "takes no part"),
        ("{at: 1 ms, link: gpu0/nic_out, then: reroute, detour: [gpu0/nic_out]}", "goes over the link itself"),
        ("{at: 1 ms, rank: 1, factor: 1.0e-9}", "write 0, dead"),
        ("{at: 1 ms, rank: 1, factor: 0.5, until: 1.0e+12 s}", "no step lasts more than"),
        ("{at: 1 ms, link: gpu0/nic_out, untill: 2 ms}", "did you mean 'until'"),
    ],
)
def test_a_fault_that_makes_no_sense_names_its_place(fault: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        seconds(f"faults=[{fault}]")
    assert str(error.value).startswith("--set faults")


def test_faults_and_port_loads_exclude_each_other() -> None:
    with pytest.raises(BadInput, match="faults need the fluid network"):
        seconds("network.level=port_load", "faults=[{at: 1 ms, rank: 1, factor: 0.5}]")
