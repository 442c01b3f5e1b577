"""Fabric: tiers whose efficiency is borrowed, and flows that ECMP spreads over queue pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.costs import CommunicationCost
from moesim.hardware import Cluster, known_topologies, load_cluster
from moesim.network import Coflow, Fabric, Flows, Group, groups, rail_ring
from moesim.network.fluid import finish_times

SIZE = 1_000_001
PERFECT = CommunicationCost(alpha=0.0)


def routed(folder: Path, routing: str) -> Cluster:
    """Eight DGX H100 under four leaves."""
    path = folder / "routed.yaml"
    text = known_topologies()["dgx-h100"].read_text().split("fabric:")[0]
    path.write_text(f"{text}fabric: {{kind: leaves, nodes: 8, nodes_per_leaf: 2, routing: {routing}}}\n")
    return load_cluster(path)


def shifted(cluster: Cluster, by: int) -> tuple[float, Coflow]:
    """Seconds and flows of a permutation: every GPU sends to the one `by` further."""
    lanes = np.arange(cluster.num_devices, dtype=np.int32)
    fabric, sizes = Fabric(cluster, {"nccl": PERFECT}), np.full(len(lanes), SIZE, dtype=np.int64)
    coflow = fabric.coflow("nccl", Flows(lanes, lanes, np.roll(lanes, -by), sizes), Group(cluster, lanes))
    used = coflow.path >= 0
    ptr = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
    return float(finish_times(fabric.capacity, ptr, coflow.path[used], coflow.bytes).max()), coflow


def test_hash_collisions_cost_what_adaptive_routing_saves(tmp_path: Path) -> None:
    adaptive, _ = shifted(routed(tmp_path, "adaptive"), 16)
    hashed, _ = shifted(routed(tmp_path, "ecmp, spines: 8"), 16)
    spread, _ = shifted(routed(tmp_path, "ecmp, spines: 8, queue_pairs: 16"), 16)
    assert np.isclose(adaptive, SIZE / 50e9)
    assert hashed > 1.4 * adaptive
    assert adaptive < spread < hashed


def test_queue_pairs_keep_every_byte_and_divide_only_what_crosses_the_spine(tmp_path: Path) -> None:
    cluster = routed(tmp_path, "ecmp, spines: 8, queue_pairs: 4")
    _, below = shifted(cluster, 8)  # every second node stays under its leaf
    assert below.bytes.sum() == 64 * SIZE
    sent = np.zeros((64, 64), dtype=np.int64)
    np.add.at(sent, (below.source, below.destination), below.bytes)
    assert set(sent[sent > 0]) == {SIZE}
    parts = np.bincount(below.source)
    assert set(parts[:8]) == {1} and set(parts[8:16]) <= {1, 4} and parts[8:16].max() == 4
    assert below.bytes[below.source == int(np.argmax(parts))].tolist() == [250001, 250000, 250000, 250000]


def test_other_tiers_borrow_the_efficiency_and_say_so() -> None:
    cost = CommunicationCost(alpha=0.0, efficiency={"nvlink": 0.8, "nic": 0.9})
    cluster = load_cluster("atlas-800t-a2", nodes=2)
    fabric = Fabric(cluster, {"nccl": cost})
    kinds = np.array(cluster.link_kind)
    assert np.allclose(fabric.capacity[kinds == "hccs_pair"], 0.8 * 28e9)
    assert np.allclose(fabric.capacity[kinds == "roce_out"], 0.9 * 25e9)
    assert fabric.notes == (
        "hccs links take the efficiency of nvlink: assumed",
        "roce links take the efficiency of nic: assumed",
    )
    assert Fabric(load_cluster("dgx-h100", nodes=2), {"nccl": cost}).notes == ()
    assert Fabric(cluster, {"nccl": PERFECT}).notes == ()


def test_each_kernel_has_its_own_share_of_the_links_inside_nodes() -> None:
    """Rings reach 0.8 of NVLink and grouped sends 0.7: the wire is 360 GB/s, beside it a port of 315 for the sends."""
    cluster = load_cluster("dgx-h100")
    costs = {"nccl": CommunicationCost(0.0, {"nvlink": 0.7}), "nccl_ring": CommunicationCost(0.0, {"nvlink": 0.8})}
    fabric, group = Fabric(cluster, costs), Group(cluster, np.arange(8, dtype=np.int32))
    assert set(np.round(fabric.capacity[:16] / 1e9)) == {360} and set(np.round(fabric.capacity[16:] / 1e9)) == {315}
    ring = rail_ring("all_gather", group, groups(8, 8), np.full(8, 10**9))
    assert np.isclose(fabric.alone(fabric.collective(ring, group)), 7e9 / 360e9)
    each = Flows.between(group, np.full((8, 8), 10**9, dtype=np.int64))
    assert np.isclose(fabric.alone(fabric.coflow("nccl", each, group)), 7e9 / 315e9)


def test_sms_limit_what_a_kernel_moves_inside_a_node_and_not_between_nodes() -> None:
    """20 SMs of 10 GB/s: 200 of 450 GB/s NVLink, all of 200 GB/s on H800; the port keeps its share."""
    cost = CommunicationCost(0.0, {"nvlink": 0.9, "nic": 0.8}, sms=20, sm_rate=10e9)
    for name, inside in (("dgx-h100", 200e9), ("hgx-h800", 180e9)):
        cluster = load_cluster(name, nodes=2)
        capacity, kinds = Fabric(cluster, {"deepep_normal": cost}).capacity, np.array(cluster.link_kind)
        assert np.allclose(capacity[kinds == "nvlink_up"], inside) and np.allclose(capacity[kinds == "nic_out"], 40e9)


def test_constants_of_another_device_are_named() -> None:
    cost = CommunicationCost(0.0, {"nvlink": 0.9, "nic": 0.8}, device="H800-SXM5-80GB")
    fabric = Fabric(load_cluster("dgx-h100", nodes=2), {"deepep_normal": cost})
    assert fabric.notes == ("deepep_normal: constants were fitted on H800-SXM5-80GB, used on H100-SXM5-80GB: assumed",)
    assert Fabric(load_cluster("hgx-h800", nodes=2), {"deepep_normal": cost}).notes == ()
