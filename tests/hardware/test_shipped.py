"""Shipped topologies: nominal figures against the makers' data sheets, and laws that hold for every one of them."""

from __future__ import annotations

import time

import numpy as np
import pytest

from moesim import yamlfile
from moesim.hardware import known_topologies, load_cluster
from moesim.hardware.validate import check_integrity

FACTORIES = (
    "dgx-a100",
    "dgx-h100",
    "hgx-h200",
    "hgx-h800",
    "dgx-b200",
    "gb200-nvl72",
    "rail-fat-tree",
    "leaf-fat-tree",
)


@pytest.mark.parametrize(
    ("name", "gpus", "nvlink", "nic", "bf16", "memory"),
    [
        ("dgx-a100", 8, 300e9, 25e9, 312e12, int(79.15 * 2**30)),
        ("dgx-h100", 8, 450e9, 50e9, 989.4e12, 81089 << 20),
        ("hgx-h200", 8, 450e9, 50e9, 989.4e12, int(139.8 * 2**30)),
        ("hgx-h800", 8, 200e9, 50e9, 989.4e12, 81089 << 20),
        ("dgx-b200", 8, 900e9, 50e9, 2250e12, int(178.35 * 2**30)),
        ("gb200-nvl72", 72, 900e9, 50e9, 2500e12, int(184.31 * 2**30)),
        ("gb200-nvl576", 576, 900e9, 50e9, 2500e12, int(184.31 * 2**30)),
        ("gb300-nvl72", 72, 900e9, 100e9, 2500e12, int(276.5 * 2**30)),
        ("dgx-a100-40gb", 8, 300e9, 25e9, 312e12, 40536 << 20),
    ],
)
def test_figures_of_data_sheets_and_memory_of_cuda(
    name: str, gpus: int, nvlink: float, nic: float, bf16: float, memory: int
) -> None:
    cluster = load_cluster(name, nodes=2)
    device, kinds = cluster.devices[0], np.array(cluster.link_kind)
    assert (cluster.num_nodes, cluster.gpus_per_node) == (2, gpus)
    assert set(cluster.link_capacity[kinds == "nvlink_up"]) == {nvlink}
    assert set(cluster.link_capacity[kinds == "nic_in"]) == {nic}
    assert device.peak_flops["bf16"] == bf16 and abs(device.memory_bytes - memory) <= 1


@pytest.mark.parametrize("name", sorted(known_topologies()))
def test_every_shipped_topology_is_sound_and_every_figure_has_a_source(name: str) -> None:
    data = yamlfile.read_yaml(known_topologies()[name]).data
    fixed = "links" in data or "dims" in data.get("fabric", {})
    for nodes in (None,) if fixed else (1, 3):
        cluster = load_cluster(name, nodes=nodes)
        check_integrity(cluster)
        assert cluster.warnings == ()
        assert all(len(source) > 10 for source in cluster.link_source)
        device = cluster.devices[0]
        figures = {"memory", "memory_bandwidth", "sms", *(f"flops.{dtype}" for dtype in device.peak_flops)}
        figures |= {"cache"} if device.cache_bytes else set()
        figures |= {"host_link"} if device.host_link else set()
        assert set(device.sources) == figures and all(device.sources.values())


def test_links_to_the_host_are_a_bus_or_a_share_of_a_chip_to_chip_link() -> None:
    """PCIe x16: 16, 32, 64 GB/s each way by generation; two GPUs share Grace's 900 GB/s of both ways together."""
    links = {name: load_cluster(name).devices[0].host_link for name in ("rtx-2080ti-pcie", "dgx-a100-40gb", "dgx-b200")}
    assert list(links.values()) == [16e9, 32e9, 64e9]
    assert load_cluster("gb200-nvl72").devices[0].host_link == 900e9 / 2 / 2
    unknown = [name for name in known_topologies() if not load_cluster(name).devices[0].host_link]
    assert set(unknown) == {"atlas-800t-a2", "cloudmatrix-384", "cpu-host"}


def test_cards_and_meshes() -> None:
    bridged = load_cluster("h100-nvl")
    kinds = [[bridged.link_kind[link] for link in bridged.path[0, b] if link >= 0] for b in (1, 2)]
    assert kinds == [["nvlink"], ["pcie", "pcie"]]
    amd = load_cluster("mi300x-platform")
    assert set(amd.link_capacity) == {64e9} and amd.num_links == 8 * 7


def test_the_promised_topologies_are_shipped() -> None:
    assert set(FACTORIES) <= set(known_topologies())


def test_links_stand_in_the_documented_order() -> None:
    cluster = load_cluster("dgx-h100", nodes=2, oversubscription=4)
    kinds = [kind for i, kind in enumerate(cluster.link_kind) if i == 0 or kind != cluster.link_kind[i - 1]]
    assert kinds == ["nvlink_up", "nvlink_down", "nic_out", "nic_in", "leaf_up", "leaf_down"]
    assert cluster.link_capacity[-1] == 2 * 50e9 / 4  # two nodes under a rail's leaf, 4:1
    assert [cluster.link_name[link] for link in cluster.path[1, 10]] == [
        "gpu1/nic_out", "leaf1/up", "leaf2/down", "gpu10/nic_in",
    ]  # fmt: skip


def test_routes_are_the_rows_of_the_path_table() -> None:
    cluster = load_cluster("leaf-fat-tree", nodes=8)
    source, destination = np.array([0, 0, 0, 5]), np.array([1, 9, 63, 5])
    routes = cluster.routes(source.astype(np.int32), destination.astype(np.int32))
    assert routes.ptr.tolist() == [0, 2, 4, 8, 8]
    assert [cluster.link_kind[link] for link in routes.link[2:8]] == [
        "nic_out", "nic_in", "nic_out", "leaf_up", "leaf_down", "nic_in",
    ]  # fmt: skip


def test_same_leaf_traffic_never_climbs() -> None:
    cluster = load_cluster("rail-fat-tree", nodes=4)
    climbs = np.isin(cluster.table, np.flatnonzero(np.array(cluster.link_kind) == "leaf_up")).any(axis=2)
    same_rail = cluster.rail_of[:, None] == cluster.rail_of[None, :]
    same_node = cluster.node_of[:, None] == cluster.node_of[None, :]
    assert np.array_equal(climbs, ~same_rail & ~same_node)


def test_a_thousand_gpus_are_built_within_a_second() -> None:
    begin = time.process_time()
    assert load_cluster("rail-fat-tree", nodes=128).num_devices == 1024
    assert time.process_time() - begin < 1.0
