"""Ways over ports: RDMA inside a node, and detours round a dead one."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.hardware import Cluster, load_cluster
from moesim.network.ports import detour, rdma_paths

RAILS = load_cluster("dgx-h100", nodes=2)
LEAVES = load_cluster("leaf-fat-tree")


def names(cluster: Cluster, links: object) -> list[str]:
    return [cluster.link_name[link] for link in np.asarray(links) if link >= 0]


def test_rdma_between_rails_crosses_the_spine_and_keeps_other_paths() -> None:
    table = rdma_paths(RAILS, RAILS.path)
    assert names(RAILS, table[0, 1]) == ["gpu0/nic_out", "leaf0/up", "leaf1/down", "gpu1/nic_in"]
    assert names(RAILS, table[0, 8]) == names(RAILS, RAILS.path[0, 8])
    assert names(RAILS, table[3, 3]) == []


def test_rdma_under_one_leaf_does_not_climb() -> None:
    path = rdma_paths(LEAVES, LEAVES.path)[0, 1]
    assert [LEAVES.link_kind[link] for link in path if link >= 0] == ["nic_out", "nic_in"]


def test_a_detour_goes_over_the_neighbour_and_ends_where_the_dead_port_did() -> None:
    out, into = (detour(RAILS, RAILS.link_name.index(name)) for name in ("gpu3/nic_out", "gpu7/nic_in"))
    assert names(RAILS, out) == ["gpu3/nvlink_up", "gpu4/nvlink_down", "gpu4/nic_out", "leaf4/up", "leaf3/down"]
    assert names(RAILS, into) == ["leaf7/up", "leaf0/down", "gpu0/nic_in", "gpu0/nvlink_up", "gpu7/nvlink_down"]


def test_what_has_no_port_has_no_detour() -> None:
    with pytest.raises(BadInput, match="only for a GPU's own port"):
        detour(RAILS, RAILS.link_name.index("leaf0/up"))
    with pytest.raises(BadInput, match="no path leaves a node"):
        rdma_paths(load_cluster("dgx-h100"), RAILS.path)
