"""Tiers other than NVLink and InfiniBand, shared ports, ECMP."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.hardware.validate import check_integrity
from tests.hardware.topologies import DEVICE, NODE, graph, sealed


def kinds(text: str, a: int, b: int) -> list[str]:
    cluster = sealed(text)
    return [cluster.link_kind[link] for link in cluster.path[a, b] if link >= 0]


def test_a_mesh_divides_its_rate_over_direct_links() -> None:
    text = DEVICE + "node: {gpus: 8, hccs: {value: 196 GB/s, shape: mesh, source: a test}}\n"
    cluster = sealed(text)
    assert cluster.num_links == 56 and set(cluster.link_capacity) == {28e9}
    assert kinds(text, 3, 5) == ["hccs_pair"]


def test_over_pcie_the_way_out_crosses_the_gpus_own_link() -> None:
    text = DEVICE + (
        "node: {gpus: 4, pcie: {value: 32 GB/s, source: a test}, tcp: {value: 100 Gb/s, source: a test}, nics: 2}\n"
        "fabric: {nodes: 2}\n"
    )
    assert kinds(text, 0, 1) == ["pcie_up", "pcie_down"]
    assert kinds(text, 0, 4) == ["pcie_up", "tcp_out", "tcp_in", "pcie_down"]
    cluster = sealed(text)
    check_integrity(cluster)
    assert cluster.table[0, 4, 1] == cluster.table[1, 5, 1]  # gpu0 and gpu1 share a port


def test_fewer_ports_than_gpus_make_fewer_rails() -> None:
    text = NODE.replace("}}\n", "}, nics: 1}\nfabric: {nodes: 3}\n")
    cluster = sealed(text)
    names = [name for name, kind in zip(cluster.link_name, cluster.link_kind, strict=True) if kind == "nic_out"]
    assert names == ["nic0/nic_out", "nic1/nic_out", "nic2/nic_out"]
    assert kinds(text, 0, 11) == ["nic_out", "nic_in"]


def ecmp(spines: int, queue_pairs: int = 1, nodes: int = 8) -> str:
    return NODE + (
        f"fabric: {{kind: leaves, nodes: {nodes}, nodes_per_leaf: 2, routing: ecmp, spines: {spines},"
        f" queue_pairs: {queue_pairs}, oversubscription: 2}}\n"
    )


def test_ecmp_splits_a_leafs_uplink_over_the_spines() -> None:
    cluster, pooled = sealed(ecmp(4)), sealed(ecmp(1))
    up = np.array(cluster.link_kind) == "leaf_up"
    assert up.sum() == 4 * 4
    assert set(cluster.link_capacity[up]) == {8 * 50e9 / 2 / 4}
    assert cluster.link_capacity[up].sum() == pooled.link_capacity[np.array(pooled.link_kind) == "leaf_up"].sum()


def test_only_fixed_paths_between_switches_collide() -> None:
    assert sealed(ecmp(4)).collides and not sealed(ecmp(1)).collides
    assert not sealed(ecmp(4, nodes=1)).collides
    assert not sealed(NODE + "fabric: {nodes: 4, oversubscription: 8}\n").collides
    behind = NODE.replace("nvlink", "pcie")
    assert sealed(behind + "fabric: {nodes: 2}\n").collides and not sealed(behind).collides
    star = ["from: gpu0, to: a, bandwidth: 1 GB/s", "from: gpu1, to: a, bandwidth: 1 GB/s"]
    chain = [star[0], star[1].replace("to: a", "to: b"), "from: a, to: b, bandwidth: 1 GB/s"]
    assert not sealed(graph(star, "a")).collides and sealed(graph(chain, "a, b")).collides


def test_ecmp_uses_every_spine_and_up_and_down_meet_there() -> None:
    cluster = sealed(ecmp(4))
    check_integrity(cluster)
    up = np.flatnonzero(np.array(cluster.link_kind) == "leaf_up")
    loads = np.bincount(cluster.table[cluster.table >= 0], minlength=cluster.num_links)[up]
    assert loads.min() > 0.6 * loads.mean() and loads.max() < 1.5 * loads.mean()


def test_the_hash_is_pinned_and_differs_by_queue_pair() -> None:
    cluster = sealed(ecmp(4, queue_pairs=3))
    tables = (cluster.path, *cluster.more_paths)
    names = [cluster.link_name[table[0, 31][1]] for table in tables]
    assert names == ["leaf0/up1", "leaf0/up0", "leaf0/up3"]
    a, b = np.arange(8)[:, None], np.arange(8, 32)[None, :]
    differs = [np.mean(table[a, b][..., 1] != cluster.path[a, b][..., 1]) for table in cluster.more_paths]
    assert np.allclose(differs, 0.75, atol=0.12)  # another of four spines in three of four cases
    check_integrity(cluster)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["rails", "leaves"]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 4),
)
def test_every_fabric_is_sound(kind: str, nodes: int, per_leaf: int, nics: int, spines: int) -> None:
    seats = f"nodes_per_leaf: {per_leaf}, " if kind == "leaves" else ""
    cluster = sealed(
        NODE.replace("}}\n", f"}}, nics: {nics}}}\n")
        + f"fabric: {{kind: {kind}, nodes: {nodes}, {seats}routing: ecmp, spines: {spines}}}\n"
    )
    check_integrity(cluster)
    assert np.array_equal(cluster.table >= 0, (cluster.table >= 0).transpose(1, 0, 2))
