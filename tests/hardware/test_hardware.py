"""Hardware: shipped topologies, paths, and files that cannot be a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.hardware import known_topologies, load_cluster

DEVICE = """moesim_topology: 1
name: toy
device:
  name: T
  memory: {value: 1 GB, source: made up}
  memory_bandwidth: {value: 1 GB/s, source: made up}
  sms: {value: 1, source: made up}
  flops: {bf16: {value: 1 TFLOP/s, source: made up}}
"""


def write(tmp_path: Path, rest: str) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(DEVICE + rest)
    return path


@pytest.mark.parametrize("name", sorted(known_topologies()))
def test_every_shipped_topology_connects_every_pair(name: str) -> None:
    cluster = load_cluster(name, nodes=2)
    pairs = np.array([(a, b) for a in range(cluster.num_devices) for b in range(cluster.num_devices) if a != b])
    assert np.all(np.diff(cluster.routes(*pairs.T).ptr) >= 2)
    assert np.all(cluster.link_capacity > 0) and all(cluster.link_source) and all(cluster.devices[0].sources.values())


def test_same_rail_stays_below_the_leaf_and_other_rails_cross_the_spine() -> None:
    cluster = load_cluster("dgx-h100", nodes=2)
    names = [[cluster.link_name[link] for link in path if link >= 0] for path in cluster.path[0, [1, 8, 9]]]
    assert names[0] == ["gpu0/nvlink_up", "gpu1/nvlink_down"]
    assert names[1] == ["gpu0/nic_out", "gpu8/nic_in"]
    assert names[2] == ["gpu0/nic_out", "leaf0/up", "leaf1/down", "gpu9/nic_in"]


def test_h800_has_the_narrow_nvlink() -> None:
    cluster = load_cluster("hgx-h800")
    assert set(cluster.link_capacity) == {200e9}


def test_oversubscription_narrows_the_spine_only() -> None:
    flat, narrow = (load_cluster("rail-fat-tree", nodes=4, oversubscription=ratio) for ratio in (1.0, 4.0))
    ratio = flat.link_capacity / narrow.link_capacity
    assert {kind: set(ratio[[k == kind for k in flat.link_kind]]) for kind in ("nic_out", "leaf_up")} == {
        "nic_out": {1.0},
        "leaf_up": {4.0},
    }


def test_the_order_of_links_in_a_file_does_not_matter(tmp_path: Path) -> None:
    rows = [f"  - {{from: gpu{g}, to: {s}, bandwidth: 1 GB/s}}\n" for g in range(3) for s in ("s1", "s2")]
    one = load_cluster(write(tmp_path, "links:\n" + "".join(rows)))
    other = load_cluster(write(tmp_path, "links:\n" + "".join(reversed(rows))))
    assert one.link_name == other.link_name and np.array_equal(one.path, other.path)


LINK = "  - {from: gpu0, to: gpu1, bandwidth: 1 GB/s}\n"


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("links:\n  - {from: gpu0, to: gpu0, bandwidth: 1 GB/s}\n", "toy.yaml:10.*to itself"),
        ("links:\n" + LINK + LINK, r"toy.yaml:11 links\[1\].*second link"),
        ("links:\n  - {from: gpu0, to: gpu1, bandwidth: 0 GB/s}\n", "greater than 0"),
        ("links:\n  - {from: gpu0, to: gpu1, bandwidth: -1 GB/s}\n", "not negative"),
        ("links:\n  - {from: gpu0, to: gpu1, bandwidth: 5}\n", "has no unit"),
        ("links:\n  - {from: gpu0, to: gpu2, bandwidth: 1 GB/s}\n", "without gaps"),
        ("node: {gpus: 2, nvlink: {value: 1 GB/s, source: made up}}\nfabric: {nodes: 2}\n", "no node.nic"),
        ("node: {gpus: 2, nvlnk: {value: 1 GB/s, source: made up}}\n", "did you mean 'nvlink'"),
        ("", "either node"),
    ],
)
def test_a_file_that_is_no_cluster_names_the_line(tmp_path: Path, rest: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_cluster(write(tmp_path, rest))


def test_a_gap_names_the_pair(tmp_path: Path) -> None:
    rest = "links:\n  - {from: gpu0, to: a, bandwidth: 1 GB/s}\n  - {from: gpu1, to: b, bandwidth: 1 GB/s}\n"
    cluster = load_cluster(write(tmp_path, rest))
    with pytest.raises(BadInput, match="no route from gpu0 to gpu1"):
        cluster.routes(np.array([0], np.int32), np.array([1], np.int32))


def test_an_unknown_topology_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="did you mean 'dgx-h100'"):
        load_cluster("dgx-h10")
