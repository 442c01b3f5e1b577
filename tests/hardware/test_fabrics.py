"""Kinds of fabrics: who meets whom, over how many links, and what a cut carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.hardware import Cluster, known_topologies, load_cluster
from moesim.hardware.blueprint import Ints, Ways
from moesim.hardware.validate import check_integrity
from moesim.network.ports import rdma_paths


def cluster(tmp_path: Path, fabric: str) -> Cluster:
    """DGX H100 nodes (8 GPUs, a 50 GB/s port each) under a fabric."""
    text = known_topologies()["dgx-h100"].read_text()
    path = tmp_path / "fabric.yaml"
    path.write_text(text[: text.index("fabric:")] + f"fabric: {{{fabric}}}\n")
    made = load_cluster(path)
    check_integrity(made)
    return made


def kinds(made: Cluster, a: int, b: int) -> list[str]:
    return [made.link_kind[link] for link in made.path[a, b] if link >= 0]


def load(made: Cluster, kind: str) -> float:
    """Seconds of the busiest link of a kind when every GPU sends 1 GB to every other."""
    tables = [paths[made.witnesses()] for paths in (made.path, *made.more_paths)]
    used = np.concatenate([rows[rows >= 0] for rows in tables])
    seconds = np.bincount(used, minlength=made.num_links) * 1e9 / len(tables) / made.link_capacity
    return float(seconds[np.array(made.link_kind) == kind].max())


def test_three_tiers_climb_as_far_as_they_must(tmp_path: Path) -> None:
    made = cluster(
        tmp_path, "kind: three_tier, nodes: 8, nodes_per_leaf: 2, leaves_per_pod: 2, core_oversubscription: 2"
    )
    assert kinds(made, 0, 8) == ["nic_out", "nic_in"]
    assert kinds(made, 0, 16) == ["nic_out", "leaf_up", "leaf_down", "nic_in"]
    assert kinds(made, 0, 32) == ["nic_out", "leaf_up", "pod_up", "pod_down", "leaf_down", "nic_in"]
    rates = {kind: made.link_capacity[made.link_kind.index(kind)] for kind in ("leaf_up", "pod_up")}
    assert rates == {"leaf_up": 16 * 50e9, "pod_up": 32 * 50e9 / 2}  # 16 ports a leaf, 32 a pod, half of them upwards


def test_a_pod_s_cut_takes_as_long_as_its_bytes(tmp_path: Path) -> None:
    """Each of 32 GPUs of a pod sends 1 GB to 32 of the other: 1,024 GB over 32 x 50 GB/s thinned out by two."""
    made = cluster(
        tmp_path, "kind: three_tier, nodes: 8, nodes_per_leaf: 2, leaves_per_pod: 2, core_oversubscription: 2"
    )
    assert load(made, "pod_up") == pytest.approx(1024 / (32 * 50 / 2))


def test_a_dragonfly_takes_one_link_between_groups_or_two(tmp_path: Path) -> None:
    """6 groups of 2 routers of 1 node: minimal ways cross one link between groups, Valiant's two."""
    shape = "kind: dragonfly, nodes: 12, nodes_per_leaf: 1, routers_per_group: 2"
    for routing, crossings in (("minimal", 1), ("valiant", 2)):
        made = cluster(tmp_path, f"{shape}, routing: {routing}")
        ways = [kinds(made, a, b) for a in range(0, 96, 8) for b in range(0, 96, 8) if a // 16 != b // 16]
        assert {way.count("global") for way in ways} == {crossings}
        assert kinds(made, 0, 8) == ["nic_out", "local", "nic_in"]


def test_a_neighbour_s_traffic_is_why_dragonflies_go_round(tmp_path: Path) -> None:
    """All of group 0 to group 1: one link when minimal, spread over the four other groups with Valiant."""
    shape = "kind: dragonfly, nodes: 12, nodes_per_leaf: 1, routers_per_group: 2"
    worst = []
    for routing in ("routing: minimal", "routing: valiant, queue_pairs: 8"):
        made = cluster(tmp_path, f"{shape}, {routing}")
        tables = [table[:16, 16:32] for table in (made.path, *made.more_paths)]
        loads = np.bincount(np.concatenate([t[t >= 0] for t in tables]), minlength=made.num_links) / len(tables)
        worst.append(loads[np.array(made.link_kind) == "global"].max())
    assert worst[0] == 256 and 256 / 4 <= worst[1] < 256 / 3


def test_another_routing_forgets_the_file_s_queue_pairs(tmp_path: Path) -> None:
    shape = "kind: dragonfly, nodes: 12, nodes_per_leaf: 1, routers_per_group: 2, routing: valiant, queue_pairs: 8"
    assert len(cluster(tmp_path, shape).more_paths) == 7
    assert not load_cluster(tmp_path / "fabric.yaml", routing="minimal").more_paths


def test_a_torus_corrects_one_coordinate_after_the_other(tmp_path: Path) -> None:
    """4 x 4 nodes: to the opposite corner two steps in each dimension; every direction has a quarter of 400 GB/s."""
    made = cluster(tmp_path, "kind: torus, nodes: 16, dims: [4, 4]")
    assert kinds(made, 0, 80) == ["nic_out", *["torus"] * 4, "nic_in"]
    assert kinds(made, 0, 24) == ["nic_out", "torus", "nic_in"]  # node 3 is next to node 0, the other way round
    assert made.link_capacity[made.link_kind.index("torus")] == 8 * 50e9 / 4


def test_without_spines_a_gpu_of_the_other_rail_passes_on(tmp_path: Path) -> None:
    made = cluster(tmp_path, "kind: rail_only, nodes: 2")
    names = [made.link_name[link] for link in made.path[1, 10] if link >= 0]
    assert names == ["gpu1/nvlink_up", "gpu2/nvlink_down", "gpu2/nic_out", "gpu10/nic_in"]
    assert kinds(made, 1, 9) == ["nic_out", "nic_in"]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["three_tier", "dragonfly"]), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
def test_every_shape_is_sound(
    tmp_path_factory: pytest.TempPathFactory, kind: str, nodes: int, few: int, more: int
) -> None:
    each = "leaves_per_pod" if kind == "three_tier" else "routers_per_group"
    routing = "routing: ecmp, spines: 2" if kind == "three_tier" else "routing: valiant"
    cluster(
        tmp_path_factory.mktemp("f"), f"kind: {kind}, nodes: {nodes}, nodes_per_leaf: {few}, {each}: {more}, {routing}"
    )


@pytest.mark.parametrize(
    ("fabric", "says"),
    [
        ("kind: rails, nodes: 2, dims: [2]", "dims has no effect on rails.*kind: torus"),
        ("kind: torus, nodes: 5, dims: [2, 2]", "fabric.yaml:18 fabric: dims.*hold 4 nodes, there are 5"),
        ("kind: rails, nodes: 2, routing: ecmp, spines: 4, queue_pairs: 64, planes: 2", "over 128 ways, at most 64"),
        ("kind: torus, nodes: 64, dims: [64]", "ways of 32 links, at most 12"),
        ("kind: dragonfly, nodes: 2", "routing of dragonfly is minimal or valiant"),
        ("kind: rails, nodes: 2, routing: valiant", "routing of rails is adaptive, ecmp or spray"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, fabric: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        cluster(tmp_path, fabric)


def test_a_message_is_divided_over_planes_and_a_plane_has_its_part(tmp_path: Path) -> None:
    """Two planes: 25 GB/s of a port each; all to all takes as long as over one plane of 50 GB/s."""
    one = cluster(tmp_path, "kind: leaves, nodes: 4, nodes_per_leaf: 2")
    busy = load(one, "nic_out")
    two = cluster(tmp_path, "kind: leaves, nodes: 4, nodes_per_leaf: 2, planes: 2")
    assert load(two, "nic_out") == pytest.approx(busy) == 24 * 1e9 / 50e9
    names = [[two.link_name[link] for link in paths[0, 16] if link >= 0] for paths in (two.path, *two.more_paths)]
    assert names[0] == ["gpu0/plane0/nic_out", "plane0/leaf0/up", "plane0/leaf1/down", "gpu16/plane0/nic_in"]
    assert names[1] == [name.replace("plane0", "plane1") for name in names[0]]


def test_spray_takes_every_spine_equally(tmp_path: Path) -> None:
    """16 GPUs of a leaf send 16 messages each to the other leaf, over 4 spines of 200 GB/s: 64 GB each."""
    made = cluster(tmp_path, "kind: leaves, nodes: 4, nodes_per_leaf: 2, routing: spray, spines: 4")
    assert load(made, "leaf_up") == pytest.approx(64 / 200)
    hashed = cluster(tmp_path, "kind: leaves, nodes: 4, nodes_per_leaf: 2, routing: ecmp, spines: 4")
    assert load(hashed, "leaf_up") > 1.02 * 64 / 200
    assert not made.collides and hashed.collides


@pytest.mark.parametrize(
    ("fabric", "between"),
    [
        ("kind: rails, nodes: 2", 50e9),
        ("kind: rails, nodes: 2, planes: 4", 50e9),  # a quarter of the message by each quarter of the port
        ("kind: leaves, nodes: 4, nodes_per_leaf: 1, routing: spray, spines: 8", 50e9),
        # a leaf of 8 ports has 400 GB/s up, 12.5 GB/s to each of 32 spines: one hash, one uplink
        ("kind: leaves, nodes: 4, nodes_per_leaf: 1, routing: ecmp, spines: 32", 12.5e9),
        ("kind: leaves, nodes: 4, nodes_per_leaf: 1, oversubscription: 16", 25e9),
    ],
)
def test_one_message_alone_has_all_the_ways_that_it_is_divided_over(
    tmp_path: Path, fabric: str, between: float
) -> None:
    made = cluster(tmp_path, fabric)
    a, b = np.array([0, 0], dtype=np.int32), np.array([1, made.num_devices - 8], dtype=np.int32)
    assert made.message_rate(a, b) == pytest.approx([450e9, between])


def test_racks_of_a_node_meet_over_trunks(tmp_path: Path) -> None:
    """4 racks of 2 GPUs, trunks thinned out by two: 2 x 450 / 2 GB/s, over which 12 messages leave a rack."""
    text = (
        known_topologies()["dgx-h100"].read_text().replace("nvlink: {", "nvlink: {racks: 4, oversubscription: 2, ", 1)
    )
    path = tmp_path / "racks.yaml"
    path.write_text(text)
    made = load_cluster(path, nodes=2)
    check_integrity(made)
    assert kinds(made, 0, 1) == ["nvlink_up", "nvlink_down"]
    names = [made.link_name[link] for link in made.path[9, 14] if link >= 0]
    assert names == ["gpu9/nvlink_up", "rack4/nvlink_up", "rack7/nvlink_down", "gpu14/nvlink_down"]
    assert kinds(made, 1, 9) == kinds(load_cluster("dgx-h100", nodes=2), 1, 9)
    assert load(made, "nvlink_trunk") == pytest.approx(12 / 450)
    assert made.collides


@pytest.mark.parametrize(
    "fabric",
    [
        "kind: rails, nodes: 4, planes: 2",
        "kind: leaves, nodes: 4, nodes_per_leaf: 2, routing: ecmp, spines: 3, queue_pairs: 2",
        "kind: three_tier, nodes: 4, nodes_per_leaf: 1, leaves_per_pod: 2",
        "kind: dragonfly, nodes: 4, nodes_per_leaf: 1, routers_per_group: 2, routing: valiant",
        "kind: torus, nodes: 4, dims: [2, 2]",
        "kind: rail_only, nodes: 4",
    ],
)
def test_worked_out_paths_are_those_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fabric: str) -> None:
    """Of whole kernels too: their own ports and ways over RDMA."""
    tabled = cluster(tmp_path, fabric)
    monkeypatch.setattr("moesim.hardware.blueprint.MAX_GPUS", 8)
    asked = cluster(tmp_path, fabric)
    assert isinstance(asked.path, Ways)
    a, b = np.indices((32, 32))
    for table, ways in zip((tabled.path, *tabled.more_paths), (asked.path, *asked.more_paths), strict=True):
        assert same(table[a, b], ways[a, b])
        assert same(rdma_paths(tabled, table)[a, b], rdma_paths(asked, ways)[a, b])


def test_nodes_of_one_gpu_have_nothing_to_send_over_rdma_inside(tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text(known_topologies()["dgx-h100"].read_text().replace("gpus: 8", "gpus: 1", 1))
    made = load_cluster(path, nodes=4)
    assert np.array_equal(rdma_paths(made, made.path)[np.indices((4, 4))[0], np.indices((4, 4))[1]], made.table)


def same(some: Ints, others: Ints) -> bool:
    """Paths of the same links, whatever the padding."""
    hops = max(some.shape[-1], others.shape[-1])
    wide = [np.pad(each, ((0, 0), (0, 0), (0, hops - each.shape[-1])), constant_values=-1) for each in (some, others)]
    return np.array_equal(wide[0], wide[1])
