"""Ways round dead links, and a fabric of two leaves whose uplinks are half of what hangs below, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.costs import CommunicationCost
from moesim.engine import GraphBuilder, evaluate, simulate
from moesim.errors import BadInput
from moesim.hardware import Cluster, load_cluster
from moesim.network import Fabric, Flows, Group
from moesim.network.detours import Named, Search, cut_off
from moesim.network.ports import detour
from tests.hardware.topologies import DEVICE, sealed

US = 1_000_000


def hashed(spines: int = 2) -> Cluster:
    return load_cluster("dgx-h100", nodes=2, routing="ecmp", spines=spines)


def numbers(cluster: Cluster, *names: str) -> list[int]:
    return [cluster.link_name.index(name) for name in names]


def path(cluster: Cluster, a: int, b: int) -> list[int]:
    return [int(link) for link in cluster.path[a, b] if link >= 0]


def test_a_flow_over_a_dead_spine_takes_another_one() -> None:
    cluster = hashed(spines=4)
    old = path(cluster, 0, 9)
    spine = cluster.link_ends[old[1]][1]
    dead = frozenset(link for link, ends in enumerate(cluster.link_ends) if spine in ends)
    ways = [Search(cluster).around(old, old[1], dead, ticket) for ticket in range(3)]
    left = [name for name in ("spine0", "spine1", "spine2", "spine3") if name != spine]
    assert [cluster.link_ends[way[1]][1] for way in ways if way] == left
    assert all(way and way[0] == old[0] and way[-1] == old[-1] and len(way) == 4 for way in ways)


def test_only_a_gpus_own_port_has_another_that_stands_in() -> None:
    cluster = hashed()
    for name in ("gpu0/nvlink_up", "gpu3/nvlink_down", "leaf0/up0"):
        with pytest.raises(BadInput, match=f"no detour is known for {name}"):
            detour(cluster, cluster.link_name.index(name))
    assert detour(cluster, cluster.link_name.index("gpu0/nic_out"))[:2] == tuple(path(cluster, 0, 1))


def test_without_any_spine_a_rail_is_reached_over_a_neighbour() -> None:
    """On rails a GPU of the same node sits under the other leaf: NVLink up and down, then out and in."""
    cluster = hashed(spines=1)
    old = path(cluster, 0, 9)
    dead = frozenset(numbers(cluster, *(f"leaf{leaf}/{way}0" for leaf in range(8) for way in ("up", "down"))))
    way = Search(cluster).around(old, old[1], dead, 0)
    assert way is not None
    assert [cluster.link_name[link] for link in way] in (
        ["gpu0/nvlink_up", "gpu1/nvlink_down", "gpu1/nic_out", "gpu9/nic_in"],
        ["gpu0/nic_out", "gpu8/nic_in", "gpu8/nvlink_up", "gpu9/nvlink_down"],
    )
    assert cut_off(cluster, dead, 16) is None


def test_a_gpu_without_links_is_cut_off() -> None:
    cluster = hashed()
    assert cut_off(cluster, numbers(cluster, "gpu5/nic_in", "gpu5/nvlink_down"), 16) == 5
    assert cut_off(cluster, numbers(cluster, "gpu0/nic_out", "gpu0/nvlink_up"), 16) == 0
    assert cut_off(cluster, numbers(cluster, "gpu5/nic_in", "gpu5/nvlink_down"), 5) is None


def test_detours_at_both_ends_leave_out_the_loop_between_them() -> None:
    cluster = hashed()
    out, into = numbers(cluster, "gpu0/nic_out", "gpu8/nic_in")
    way = path(cluster, 0, 8)
    for link in (out, into):
        way = Named(cluster, detour(cluster, link)).around(way, link, frozenset({out, into}), 0)
    assert [cluster.link_name[link] for link in way] == [
        "gpu0/nvlink_up", "gpu1/nvlink_down", "gpu1/nic_out", "gpu9/nic_in", "gpu9/nvlink_up", "gpu8/nvlink_down",
    ]  # fmt: skip


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_uniform_exchange_under_two_leaves_by_hand(ratio: int) -> None:
    """8 nodes of 2 GPUs, 4 nodes a leaf, ports of 50 GB/s, 4 MB a pair: 80 us each through a port. 14 peers are
    elsewhere: 1,120 us. Of them 8 are under the other leaf: 8 GPUs send 64 flows up, at 2:1 through 4 ports' worth,
    16 each: 1,280 us.
    """
    node = "node: {gpus: 2, nvlink: {value: 450 GB/s, source: a test}, nic: {value: 50 GB/s, source: a test}}\n"
    fabric = f"fabric: {{kind: leaves, nodes: 8, nodes_per_leaf: 4, oversubscription: {ratio}}}\n"
    cluster = sealed(DEVICE + node + fabric)
    lanes = np.arange(16, dtype=np.int32)
    group, made = Group(cluster, lanes), Fabric(cluster, {"nccl": CommunicationCost(alpha=0.0)})
    builder = GraphBuilder()
    flows = Flows.between(group, np.full((16, 16), 4_000_000))
    builder.add("exchange", "exchange", "comm", lanes.tolist(), coflow=made.coflow("nccl", flows, group))
    graph, expected = builder.build(), {1: 1120, 2: 1280}[ratio] * US
    for timeline in (simulate(graph, made.capacity), evaluate(graph, made.capacity, network="port_load")):
        assert timeline.step_ps == pytest.approx(expected, rel=1e-9)
        assert np.all(timeline.link_bytes <= made.capacity * timeline.step_seconds * (1 + 1e-9))
