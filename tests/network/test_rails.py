"""Collectives over several nodes: loads of ports and NVLink by hand, every rail used, no link above what it carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.costs import CommunicationCost, load_costs
from moesim.errors import BadInput
from moesim.hardware import known_topologies, load_cluster
from moesim.network import Collective, Fabric, Group, groups, of_engine, rail_ring
from moesim.network.all_to_all import find
from moesim.network.collectives import all_gather
from moesim.network.rails import algorithms, nvls, tree
from moesim.step.rings import ring

S = 16 * 8 * 9 * 7 * 1000
PERFECT = CommunicationCost(0.0)
KERNELS = dict.fromkeys(("nccl", "nccl_ring", "nccl_nvls"), PERFECT)


def group_of(nodes: int, topology: str = "dgx-h100") -> Group:
    cluster = load_cluster(topology, nodes=nodes)
    return Group(cluster, np.arange(8 * nodes, dtype=np.int32))


def loads(collective: Collective, group: Group) -> dict[str, set[int]]:
    """kind of link -> bytes that such links carry."""
    coflow = Fabric(group.cluster, KERNELS).collective(collective, group)
    carried = np.zeros(group.cluster.num_links, dtype=np.int64)
    for path, size in zip(coflow.path, coflow.bytes, strict=True):
        np.add.at(carried, path[path >= 0], size)
    kinds = np.array(group.cluster.link_kind)
    return {kind: set(carried[kinds == kind].tolist()) for kind in dict.fromkeys(group.cluster.link_kind)}


def seconds(collective: Collective, group: Group) -> float:
    fabric = Fabric(group.cluster, KERNELS)
    return fabric.alone(fabric.collective(collective, group))


@pytest.mark.parametrize(("op", "passes"), [("all_gather", 1), ("reduce_scatter", 1), ("all_reduce", 2)])
def test_rings_leave_a_node_by_all_its_ports(op: str, passes: int) -> None:
    """S (n - 1) / n a pass through each node, an eighth by each port; rings on two nodes never climb to a spine."""
    group = group_of(2)
    found = loads(rail_ring(op, group, groups(16, 16), np.full(16, S // 16)), group)
    assert found["nic_out"] == found["nic_in"] == {passes * S * 15 // 16 // 8}
    assert found["leaf_up"] == {0}
    assert max(found["nvlink_up"]) <= passes * S * 15 // 16


def test_one_ring_through_one_port_is_eight_times_slower() -> None:
    """A single ring over ranks in order leaves a node by one port, at 50 GB/s; eight of them carry 400."""
    group, part = group_of(2), np.full(16, S // 16)
    assert seconds(all_gather(group, groups(16, 16), part), group) == pytest.approx(S * 15 / 16 / 50e9)
    assert seconds(rail_ring("all_gather", group, groups(16, 16), part), group) == pytest.approx(S * 15 / 16 / 400e9)


def test_a_ring_per_rail_where_each_node_holds_one_gpu_of_a_group() -> None:
    """Tensor parallel 8 over 4 nodes: 8 groups with a GPU in each node, every one by its own port."""
    group = group_of(4)
    collective = rail_ring("all_gather", group, groups(32, 4, 8), np.full(32, S // 4))
    assert loads(collective, group)["nic_out"] == {S * 3 // 4}
    assert (collective.ranks, collective.messages, collective.crossings) == (1, 0, 3)


def test_rounds_inside_and_between_nodes() -> None:
    ring = rail_ring("all_gather", group_of(4), groups(32, 32), np.full(32, 8))
    assert (ring.ranks, ring.messages, ring.further, ring.crossings) == (8, 7, 21, 3)
    assert ring.messages + ring.further + ring.crossings == 31
    assert tree(group_of(4), groups(32, 32), S).crossings == 4  # type: ignore[union-attr]


def test_uneven_groups_run_one_ring_and_no_tree() -> None:
    group = group_of(2)
    odd = np.array([[0, 1, 2, 8]], dtype=np.int32)
    ring = rail_ring("all_gather", group, odd, np.full(16, 12))
    assert (ring.ranks, ring.crossings, int(ring.flows.bytes.sum())) == (4, 0, 4 * 36)
    assert tree(group, odd, S) is None and nvls(group, odd, S) is None


@given(st.integers(2, 5), st.integers(1, 10**7))
def test_a_tree_moves_every_byte_up_and_down_and_loads_ports_at_most_twice(nodes: int, size: int) -> None:
    """2 (n - 1) S over all hops of a tree and its chains; no port more than 4 S / 2 / 8, rounded up."""
    group = group_of(nodes)
    collective = tree(group, groups(8 * nodes, 8 * nodes), size)
    assert collective is not None and int(collective.flows.bytes.sum()) == 2 * (8 * nodes - 1) * size
    assert max(loads(collective, group)["nic_out"]) <= 2 * (size // 8 + 1) + 2


def test_reduction_in_the_switch_moves_the_buffer_once_and_an_eighth() -> None:
    """Bus bandwidth 14 / 9 of NVLink in a node of eight: 700 of 450 GB/s with perfect links, and no link above 450."""
    group = group_of(1)
    collective = nvls(group, groups(8, 8), S)
    assert collective is not None
    assert loads(collective, group)["nvlink_up"] == loads(collective, group)["nvlink_down"] == {S * 9 // 8}
    assert 2 * S * 7 / 8 / seconds(collective, group) == pytest.approx(450e9 * 14 / 9)
    assert nvls(group_of(1, "dgx-a100"), groups(8, 8), S) is None  # NVSwitch of the second generation does not reduce


def test_two_nodes_reduce_faster_than_their_ports_carry() -> None:
    """An eighth of the sum goes up and down two trees, S / 8 a port: NVLink binds, bus bandwidth 5 / 3 of it."""
    group = group_of(2)
    collective = nvls(group, groups(16, 16), S)
    assert collective is not None and loads(collective, group)["nic_out"] == {S // 8}
    assert 2 * S * 15 / 16 / seconds(collective, group) == pytest.approx(450e9 * 5 / 3)
    four = group_of(4)
    on_four = nvls(four, groups(32, 32), S)
    assert on_four is not None and max(loads(on_four, four)["nic_out"]) == 2 * S // 8  # four edges, half a tree each


def test_the_library_takes_what_is_done_first() -> None:
    """Small: the tree has fewer crossings than the ring; large: NVLS on two nodes."""
    group = group_of(2)
    ring = CommunicationCost(1e-6, per_message=1e-6, per_crossing=4e-6)
    fabric = Fabric(group.cluster, {"nccl_ring": ring, "nccl_nvls": CommunicationCost(1e-4)})
    parts = (np.full(16, size) for size in (1, 10**8))
    small, large = (algorithms("all_reduce", group, groups(16, 16), part) for part in parts)
    assert [fabric.fastest(some, group)[0].algorithm for some in (small, large)] == ["tree", "nvls_tree"]
    with pytest.raises(BadInput, match="broadcast is none of"):
        algorithms("broadcast", group, groups(16, 16), np.full(16, 8))


def test_latency_of_links_counts_once_a_crossing_and_once_a_message(tmp_path: Path) -> None:
    """Rings on four nodes: 28 hops inside nodes of 1 us, 3 between them of 5 us."""
    text = known_topologies()["dgx-h100"].read_text()
    late = text.replace("nvlink: {value", "nvlink: {latency: 1 us, value").replace(
        "nic: {value", "nic: {latency: 5 us, value"
    )
    (tmp_path / "late.yaml").write_text(late)
    cluster = load_cluster(tmp_path / "late.yaml", nodes=4)
    group = Group(cluster, np.arange(32, dtype=np.int32))
    coflow = Fabric(cluster, KERNELS).collective(rail_ring("all_gather", group, groups(32, 32), np.full(32, 8)), group)
    assert coflow.alpha == pytest.approx(28e-6 + 15e-6)
    assert coflow.chain is not None
    for inside, more in ((True, 28), (False, 3)):  # a hop by a path of 2 us more
        latency = coflow.chain.latency.copy()
        latency[np.flatnonzero(latency == (10**6 if inside else 5 * 10**6))[0]] += 2 * 10**6
        assert coflow.chain.ps(latency) == (28 + 15 + 2 * more) * 10**6


@pytest.mark.parametrize(
    ("profile", "topology", "engine", "ranks", "size", "us"),
    [
        ("b200_sxm", "dgx-b200", "vllm", 8, 1 << 20, 16.95), ("b200_sxm", "dgx-b200", "vllm", 8, 1 << 18, 25.9),
        ("h100_sxm", "dgx-h100", "sglang", 4, 1 << 14, 4.8), ("h100_sxm", "dgx-h100", "trtllm", 8, 1 << 28, 1090.0),
    ],
)  # fmt: skip
def test_an_engines_all_reduce_takes_what_its_table_says(
    profile: str, topology: str, engine: str, ranks: int, size: int, us: float
) -> None:
    """Rows of aiconfigurator-core 0.12.0, the median over versions, of one-shot, two-shot and NCCL's sizes."""
    cluster = load_cluster(topology, nodes=1)
    known = load_costs(profile, cluster.devices[0]).communication
    group = Group(cluster, np.arange(8, dtype=np.int32))
    fabric = Fabric.of(cluster, known, find("nccl"), group, engine=engine)
    one = ring(fabric, group, "all_reduce", ranks, np.full(8, size // ranks))
    assert fabric.alone(one) * 1e6 == pytest.approx(us, rel=0.01)


def test_an_engines_all_reduce_is_for_all_reduces_of_one_node() -> None:
    two, part = group_of(2), np.full(16, S // 16)
    assert of_engine("vllm", "all_reduce", two, groups(16, 16), part) == ()
    assert of_engine("vllm", "all_gather", two, groups(16, 8), part) == ()
    (inside,) = of_engine("vllm", "all_reduce", two, groups(16, 8), part)
    assert inside.algorithm == "vllm" and inside.ranks == 8
