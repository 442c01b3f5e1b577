"""All-to-all algorithms: what they send, counted by hand on small clusters."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.costs import CommunicationCost
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.network import Fabric, Flows, Group, all_to_all, count_copies, ring_pass, ring_seconds
from moesim.network.port_load import coflow_ends

CLUSTER = load_cluster("dgx-h100", nodes=2)
GROUP = Group(CLUSTER, np.arange(16, dtype=np.int32))
NODE = CLUSTER.node_of


def copies_of(source: list[int], destination: list[list[int]]):  # type: ignore[no-untyped-def]
    return count_copies(np.array(source, np.int32), np.array(destination, np.int32), 16, NODE)


def by_pair(flows: Flows) -> dict[tuple[int, int], int]:
    return {(int(a), int(b)): int(n) for a, b, n in zip(flows.source, flows.destination, flows.bytes, strict=True)}


def test_copies_merge_by_device_and_by_node() -> None:
    copies = copies_of([0], [[9, 9, 10, 1]])
    assert copies.pairs[0].sum() == 4 and copies.devices[0].sum() == 3
    assert copies.nodes[0].tolist() == [1, 1]


def test_a_token_without_an_expert_sends_nothing() -> None:
    assert copies_of([0], [[-1, 3]]).pairs.sum() == 1


def test_pairwise_sends_one_row_per_choice_and_nothing_to_itself() -> None:
    flows = all_to_all.find("nccl").dispatch(copies_of([0], [[9, 9, 10, 0]]), 100, GROUP)
    assert by_pair(flows) == {(0, 9): 200, (0, 10): 100}


def test_deepep_normal_sends_one_copy_to_its_rail_and_forwards() -> None:
    flows = all_to_all.find("deepep_normal").dispatch(copies_of([0], [[9, 10, 8, 1]]), 100, GROUP)
    assert by_pair(flows) == {(0, 8): 100, (8, 9): 100, (8, 10): 100, (0, 1): 100}


@pytest.mark.parametrize("name", sorted(all_to_all.REGISTRY))
def test_combine_is_dispatch_reversed(name: str) -> None:
    rng = np.random.default_rng(1)
    copies = copies_of(list(np.repeat(range(16), 4)), rng.integers(0, 16, (64, 4)).tolist())
    algorithm = all_to_all.find(name)
    there, back = (by_pair(way(copies, 8, GROUP)) for way in (algorithm.dispatch, algorithm.combine))
    assert back == {(b, a): n for (a, b), n in there.items()}


def test_a_kernel_limit_binds_only_its_own_flows() -> None:
    half, full = CommunicationCost(0.0, {"nvlink": 0.5}), CommunicationCost(0.0, {"nvlink": 1.0})
    fabric = Fabric(CLUSTER, {"deepep_normal": half, "nccl": full})
    zero, one = np.array([0], np.int32), np.array([1], np.int32)
    flows = Flows(zero, zero, one, np.array([450]))
    times = {}
    for name in ("deepep_normal", "nccl"):
        coflow = fabric.coflow(name, flows, GROUP)
        times[name] = np.max(450 / fabric.capacity[coflow.path[coflow.path >= 0]])
    assert times["deepep_normal"] == pytest.approx(2 * times["nccl"])


def test_ports_wait_for_late_releases() -> None:
    """Two sources of 450 bytes into one port: the late one starts at 1 ns, after the first has passed."""
    fabric = Fabric(CLUSTER, {"nccl": CommunicationCost(0.0)})
    flows = Flows(
        np.array([0, 1], np.int32), np.array([0, 1], np.int32), np.array([2, 2], np.int32), np.array([450, 450])
    )
    coflow = fabric.coflow("nccl", flows, GROUP)
    release = np.zeros(16, np.int64)
    release[1] = 10_000
    arrival, done = np.zeros(16, np.int64), np.zeros(16, np.int64)
    links = len(fabric.capacity)
    end = coflow_ends(
        release, coflow.owner_ptr, coflow.source, coflow.destination, coflow.bytes, coflow.path, fabric.capacity, 0,
        arrival, done, np.zeros(links), np.zeros(links, np.int64),
    )  # fmt: skip
    assert end == arrival[2] == 11_000 and done[0] == 1_000 and done[3] == 0


def test_a_ring_matches_its_closed_form() -> None:
    fabric = Fabric(CLUSTER, {"nccl": CommunicationCost(0.0)})
    coflow = fabric.coflow("nccl", ring_pass(GROUP, 8, np.full(16, 1000)), GROUP)
    load = np.bincount(coflow.path[coflow.path >= 0], np.repeat(coflow.bytes, (coflow.path >= 0).sum(axis=1)))
    assert np.max(load / fabric.capacity[: len(load)]) == pytest.approx(ring_seconds(1, 8, 8000, 450e9, 0.0))


def test_an_unknown_algorithm_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="did you mean 'deepep_normal'"):
        all_to_all.find("deepep_norml")
