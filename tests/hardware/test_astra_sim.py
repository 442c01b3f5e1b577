"""ASTRA-sim's network file, both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.hardware import Cluster, load_cluster
from moesim.hardware.formats import Imported, export_topology, import_topology
from moesim.hardware.formats.astra_sim import Network
from moesim.hardware.validate import check_integrity


def file_of(shapes: str, counts: str, bandwidth: str = "400", latency: str = "936.25") -> str:
    rows = [f"topology: [ {shapes} ]", f"npus_count: [ {counts} ]", f"bandwidth: [ {bandwidth} ]  # GB/s"]
    return "\n".join([*rows, f"latency: [ {latency} ]\n"])


def imported(path: Path, text: str) -> Imported:
    path.write_text(text)
    return import_topology(path)


def hops(cluster: Cluster, a: int, b: int) -> int:
    return int((cluster.path[a, b] >= 0).sum())


def test_a_switch_of_eight(tmp_path: Path) -> None:
    cluster = imported(tmp_path / "h100.yml", file_of("Switch", "8")).cluster
    assert (cluster.num_devices, cluster.num_nodes, set(cluster.link_capacity)) == (8, 1, {400e9})
    assert np.allclose(cluster.link_latency, 936.25e-9)


def test_two_switch_dimensions_are_nodes_and_rails(tmp_path: Path) -> None:
    made = imported(tmp_path / "x.yml", file_of("Switch, Switch", "8, 4", "400, 50", "900, 1000"))
    cluster = made.cluster
    assert (cluster.num_nodes, cluster.gpus_per_node) == (4, 8)
    assert hops(cluster, 0, 8) == 2 and cluster.link_capacity[cluster.table[0, 8, 0]] == 50e9
    assert "relays" in made.notes[0]


def test_a_ring_passes_over_its_neighbours_routers(tmp_path: Path) -> None:
    cluster = imported(tmp_path / "x.yml", file_of("Ring", "6", "25")).cluster
    check_integrity(cluster)
    assert [hops(cluster, 0, b) for b in range(1, 6)] == [3, 4, 5, 4, 3]  # own link, ring links, own link
    assert set(cluster.link_capacity) == {25e9, 50e9}


def test_a_torus_with_a_switch_on_top(tmp_path: Path) -> None:
    cluster = imported(
        tmp_path / "x.yml", file_of("Ring, FullyConnected, Switch", "4, 3, 2", "10, 20, 30", "1, 2, 3")
    ).cluster
    check_integrity(cluster)
    assert (cluster.num_devices, cluster.num_nodes) == (24, 6)
    names = [cluster.link_name[link] for link in cluster.path[0, 4] if link >= 0]
    assert names == ["gpu0->router0", "router0->router4", "router4->gpu4"]
    assert hops(cluster, 0, 12) == 4


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["Switch", "FullyConnected"]),
    st.integers(2, 8),
    st.integers(1, 4),
    st.integers(1, 900),
    st.integers(1, 100),
    st.integers(0, 5000),
)
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, shape: str, gpus: int, nodes: int, inner: int, outer: int, latency: int
) -> None:
    one = file_of(shape, f"{gpus}", f"{inner}", f"{latency}")
    two = file_of(f"{shape}, Switch", f"{gpus}, {nodes}", f"{inner}, {outer}", f"{latency}, {latency}")
    text = one if nodes == 1 else two
    cluster = imported(tmp_path_factory.mktemp("astra") / "net.yml", text).cluster
    back = export_topology(cluster, "astra-sim").text
    first, again = (yamlfile.parse_yaml(t, "x").validate(Network) for t in (text, back))
    assert (first.topology, first.npus_count) == (again.topology, again.npus_count)
    assert np.allclose(first.bandwidth, again.bandwidth) and np.allclose(first.latency, again.latency)


@pytest.mark.parametrize("name", ["dgx-h100", "gb200-nvl72", "hgx-h800", "cloudmatrix-384", "atlas-800t-a2"])
def test_a_shipped_cluster_comes_back_with_the_same_links(tmp_path: Path, name: str) -> None:
    cluster = load_cluster(name, nodes=2)
    again = imported(tmp_path / "x.yml", export_topology(cluster, "astra-sim").text).cluster
    assert np.array_equal(again.table, cluster.table)
    assert np.allclose(again.link_capacity, cluster.link_capacity)


def test_what_is_lost_on_the_way_out_is_said() -> None:
    notes = export_topology(load_cluster("rail-fat-tree", oversubscription=2), "astra-sim").notes
    assert "oversubscription 2:1 is lost" in notes[0] and "latency is 0" in notes[1]
    shared = export_topology(load_cluster("l40s-pcie", nodes=8), "astra-sim")
    assert "12.5" in shared.text and any("share" in note for note in shared.notes) and "ECMP" in shared.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (file_of("Switch, Ring", "8"), "one entry per dimension"),
        (file_of("Mesh", "8"), r"net\.yml:1 topology\[0\]"),
        (file_of("Switch", "8", "0"), r"net\.yml:3 bandwidth\[0\].*greater than 0"),
        (file_of("Switch", "8", "-1"), "greater than 0"),
        (file_of("Switch", "0"), "npus_count"),
        (file_of("Ring, Ring", "1000, 1000", "1, 1", "1, 1"), "at most 4096"),
        (file_of("Switch", "8") + "links: 3\n", "unknown key 'links'"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path / "net.yml", text)
