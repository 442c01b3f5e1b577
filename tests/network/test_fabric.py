"""Fabric: tiers whose efficiency is borrowed, and flows that ECMP spreads over queue pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.costs import CommunicationCost
from moesim.hardware import Cluster, known_topologies, load_cluster
from moesim.network import Coflow, Fabric, Flows, Group
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
