"""All-to-all algorithms: what they send, counted by hand on small clusters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.costs import CommunicationCost, communication_of
from moesim.errors import BadInput, BrokenInvariant
from moesim.hardware import known_topologies, load_cluster
from moesim.network import Fabric, Flows, Group, all_to_all, count_copies
from moesim.network.all_to_all.hops import added_up
from moesim.network.port_times import coflow_times, matrix_seconds, ticks_per_byte

CLUSTER = load_cluster("dgx-h100", nodes=2)
GROUP = Group(CLUSTER, np.arange(16, dtype=np.int32))
NODE = CLUSTER.node_of


def copies_of(source: list[int], destination: list[list[int]]):  # type: ignore[no-untyped-def]
    return count_copies(np.array(source, np.int32), np.array(destination, np.int32), 16, NODE)


def by_pair(*stages: Flows) -> dict[tuple[int, int], int]:
    """Bytes by (source, destination), all stages together."""
    total: dict[tuple[int, int], int] = {}
    for flows in stages:
        for a, b, n in zip(flows.source.tolist(), flows.destination.tolist(), flows.bytes.tolist(), strict=True):
            total[a, b] = total.get((a, b), 0) + n
    return total


def sent(name: str, source: list[int], destination: list[list[int]]) -> dict[tuple[int, int], int]:
    return by_pair(*all_to_all.find(name).dispatch(copies_of(source, destination), 100, GROUP))


def test_copies_merge_by_device_and_by_node() -> None:
    copies = copies_of([0], [[9, 9, 10, 1]])
    assert copies.pairs[0].sum() == 4 and copies.devices[0].sum() == 3
    assert copies.nodes[0].tolist() == [1, 1]


def test_a_token_without_an_expert_sends_nothing() -> None:
    assert copies_of([0], [[-1, 3]]).pairs.sum() == 1


def test_pairwise_sends_one_row_per_choice_and_nothing_to_itself() -> None:
    assert sent("nccl", [0], [[9, 9, 10, 0]]) == {(0, 9): 200, (0, 10): 100}


def test_deepep_normal_sends_one_copy_to_its_rail_and_forwards() -> None:
    assert sent("deepep_normal", [0], [[9, 10, 8, 1]]) == {(0, 8): 100, (8, 9): 100, (8, 10): 100, (0, 1): 100}


def test_pxn_reaches_the_rail_of_the_destination_first_and_sends_for_the_whole_node() -> None:
    assert sent("pxn", [0, 3], [[9], [9]]) == {(0, 1): 100, (3, 1): 100, (1, 9): 200}


def test_hierarchical_2d_is_pxn_in_two_stages() -> None:
    inside, between = all_to_all.find("hierarchical_2d").dispatch(copies_of([0], [[9, 2]]), 100, GROUP)
    assert by_pair(inside) == {(0, 1): 100, (0, 2): 100} and by_pair(between) == {(1, 9): 100}


def test_bilevel_sends_one_copy_per_node_and_one_per_choice_inside() -> None:
    between, inside = all_to_all.find("bilevel").dispatch(copies_of([0], [[9, 9, 10, 1]]), 100, GROUP)
    assert by_pair(between) == {(0, 8): 100} and by_pair(inside) == {(8, 9): 200, (8, 10): 100, (0, 1): 100}


def test_all_gather_brings_every_row_everywhere_whatever_the_routing() -> None:
    flows = sent("allgather_reducescatter", [0, 0, 5], [[1], [2], [9]])
    assert flows == sent("allgather_reducescatter", [0, 0, 5], [[0], [0], [0]])
    assert sum(n for (_, b), n in flows.items() if b == 12) == 300  # everything, once


def test_one_nvlink_domain_merges_by_device_and_refuses_two_domains() -> None:
    one = Group(CLUSTER, np.arange(8, dtype=np.int32))
    copies = count_copies(np.array([0], np.int32), np.array([[3, 3, 4]], np.int32), 8, NODE[:8])
    (flows,) = all_to_all.find("nvlink_domain").dispatch(copies, 100, one)
    assert by_pair(flows) == {(0, 3): 100, (0, 4): 100}
    with pytest.raises(BadInput, match="over 2 NVLink domains"):
        all_to_all.find("nvlink_domain").dispatch(copies_of([0], [[9]]), 100, GROUP)


def test_exflow_brings_nothing_back_but_the_results_of_further_choices() -> None:
    """Tokens of lane 0 go to 9 (and 10) and stay at 9, where the second expert's result is wanted."""
    exflow, there = all_to_all.find("exflow"), [[9, 10], [9, -1]]
    assert by_pair(*exflow.dispatch(copies_of([0, 0], there), 100, GROUP)) == {(0, 9): 200, (0, 10): 100}
    assert by_pair(*exflow.combine(copies_of([9, 9], there), 100, GROUP)) == {(10, 9): 100}


def test_low_latency_rows_carry_a_header_on_the_way_there_only() -> None:
    algorithm, copies = all_to_all.find("deepep_low_latency"), copies_of([0], [[9, 9]])
    assert by_pair(*algorithm.dispatch(copies, 100, GROUP)) == {(0, 9): 232}
    assert by_pair(*algorithm.combine(copies, 100, GROUP)) == {(9, 0): 200}


def test_versions_and_paths_are_checked_against_what_an_algorithm_has() -> None:
    low = all_to_all.find("deepep_low_latency")
    first = low.configured("2025-02", None)
    assert (low.same_node, first.same_node, first.configured("2025-02", "nvlink").same_node) == (
        "nvlink",
        "rdma",
        "nvlink",
    )
    assert first.all_kernels() == ("deepep_low_latency@2025-02", "deepep_low_latency_intranode@2025-02")
    newest = ("deepep_low_latency", "deepep_low_latency_intranode")
    assert low.configured("2025-06", None).all_kernels() == low.all_kernels() == newest
    with pytest.raises(BadInput, match="known: 2025-02, 2025-06"):
        low.configured("2024-12", None)
    with pytest.raises(BadInput, match="nccl has no version"):
        all_to_all.find("nccl").configured("2.27", None)


def test_deepep_normal_has_a_kernel_for_one_node_and_one_for_several() -> None:
    one = Group(CLUSTER, np.arange(8, dtype=np.int32))
    normal = all_to_all.find("deepep_normal")
    assert (normal.kernel(one), normal.kernel(GROUP)) == ("deepep_intranode", "deepep_normal")


def test_low_latency_in_one_node_has_constants_of_its_own_unless_rows_take_the_nic() -> None:
    one, low = Group(CLUSTER, np.arange(8, dtype=np.int32)), all_to_all.find("deepep_low_latency")
    assert (low.kernel(one), low.kernel(GROUP)) == ("deepep_low_latency_intranode", "deepep_low_latency")
    assert low.configured("2025-02", None).kernel(one) == "deepep_low_latency@2025-02"


def test_gpus_that_share_a_port_gather_at_one_of_them(tmp_path: Path) -> None:
    """One NIC a node: 1 -> 10 goes 1 -> 0 -> 8 -> 10, and a node sends one message to each other node."""
    group = one_nic(tmp_path)
    copies = count_copies(np.array([1, 2], np.int32), np.array([[10], [8]], np.int32), 16, NODE)
    inside, between, handed = all_to_all.find("hierarchical_2d").dispatch(copies, 100, group)
    assert by_pair(inside) == {(1, 0): 100, (2, 0): 100}
    assert by_pair(between) == {(0, 8): 200} and by_pair(handed) == {(8, 10): 100}
    home = count_copies(np.array([1], np.int32), np.array([[2]], np.int32), 16, NODE)
    assert by_pair(*all_to_all.find("hierarchical_2d").dispatch(home, 100, group)) == {(1, 2): 100}


def test_many_small_messages_make_a_shared_nic_slower_and_a_gathering_gpu_gains(tmp_path: Path) -> None:
    """A row from each GPU to each of 8 remote ones: 64 messages of one NIC, and one once a GPU gathers them."""
    group = one_nic(tmp_path)
    cost = CommunicationCost(alpha=0.0, per_message=1e-6)
    fabric = Fabric(group.cluster, {"nccl": cost})
    each = count_copies(
        np.repeat(np.arange(16, dtype=np.int32), 16), np.tile(np.arange(16, dtype=np.int32), 16)[:, None], 16, NODE
    )
    flat, gathered = (
        sum(
            fabric.alone(fabric.coflow("nccl", flows, group))
            for flows in all_to_all.find(name).dispatch(each, 64, group)
        )
        for name in ("nccl", "hierarchical_2d")
    )
    assert flat == pytest.approx(64e-6 + 64 * 64 / 50e9)
    assert gathered == pytest.approx(
        (7 + 1 + 7) * 1e-6 + 64 * 64 / 50e9 + 2 * 7 * 8 * 64 / 450e9 + 64 * 7 / 450e9, rel=0.01
    )
    assert gathered < flat / 3


def one_nic(folder: Path) -> Group:
    """Two nodes of eight GPUs, one 400 Gb/s port each."""
    text = known_topologies()["dgx-h100"].read_text().replace("  gpus: 8\n", "  gpus: 8\n  nics: 1\n")
    (folder / "one.yaml").write_text(text)
    return Group(load_cluster(folder / "one.yaml", nodes=2), np.arange(16, dtype=np.int32))


def test_a_version_or_kernel_that_a_profile_lacks_takes_the_constants_of_its_sibling() -> None:
    known = {"deepep_normal": CommunicationCost(1.0), "deepep_normal@2025-02": CommunicationCost(2.0)}
    asked = ("deepep_normal@2025-02", "deepep_normal@2026-01", "deepep_intranode")
    assert [communication_of(known, kernel).alpha for kernel in asked] == [2.0, 1.0, 1.0]
    with pytest.raises(BadInput, match="known: deepep_normal, deepep_normal@2025-02"):
        communication_of(known, "nccl")


@pytest.mark.parametrize("name", sorted(set(all_to_all.REGISTRY) - {"nvlink_domain", "deepep_low_latency"}))
def test_combine_is_dispatch_reversed(name: str) -> None:
    rng = np.random.default_rng(1)
    copies = copies_of(list(np.repeat(range(16), 4)), rng.integers(0, 16, (64, 4)).tolist())
    algorithm = all_to_all.find(name)
    there, back = (by_pair(*way(copies, 8, GROUP)) for way in (algorithm.dispatch, algorithm.combine))
    assert back == {(b, a): n for (a, b), n in there.items()}


@pytest.mark.parametrize("name", sorted(set(all_to_all.REGISTRY) - {"nvlink_domain"}))
def test_layers_go_their_ways_together_as_each_does_alone_and_in_as_many_stages(name: str) -> None:
    rng, ways = np.random.default_rng(3), all_to_all.find(name)
    source = list(np.repeat(range(16), 4))
    layers = [copies_of(source, rng.integers(-1, 16, (64, 4)).tolist()) for _ in range(3)]
    layers.append(copies_of(source, [[-1]] * 64))  # nobody sends
    levels = ("pairs", "devices", "nodes", "tokens")
    stacked = replace(layers[0], **{level: np.stack([getattr(one, level) for one in layers]) for level in levels})
    alone = [ways.hops(one, GROUP) for one in layers]
    for stage, rows in enumerate(ways.hops(stacked, GROUP)):
        assert np.array_equal(rows, np.stack([one[stage] for one in alone]))
    assert len({len(one) for one in alone}) == 1


@pytest.mark.parametrize("name", sorted(all_to_all.REGISTRY))
def test_one_rank_sends_nothing(name: str) -> None:
    alone = Group(CLUSTER, np.zeros(1, dtype=np.int32))
    copies = count_copies(np.zeros(4, np.int32), np.zeros((4, 1), np.int32), 1, np.zeros(1, np.int32))
    for way in (all_to_all.find(name).dispatch, all_to_all.find(name).combine):
        assert by_pair(*way(copies, 8, alone)) == {}


@pytest.mark.parametrize("name", sorted(set(all_to_all.REGISTRY) - {"replicated", "nvlink_domain"}))  # no rows; no NIC
def test_whatever_the_way_no_lane_gets_less_than_its_distinct_rows(name: str) -> None:
    rng = np.random.default_rng(2)
    copies = copies_of(list(np.repeat(range(16), 8)), rng.integers(0, 16, (128, 4)).tolist())
    got = np.zeros(16, np.int64)
    for (_, destination), size in by_pair(*all_to_all.find(name).dispatch(copies, 1, GROUP)).items():
        got[destination] += size
    distinct = copies.devices.sum(axis=0) - np.diagonal(copies.devices)
    assert np.all(got >= distinct)


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
    done, arrival = np.zeros(16, np.int64), np.zeros(16, np.int64)
    load, last, first = (np.zeros(len(fabric.capacity), np.int64) for _ in range(3))
    end, _ = coflow_times(
        release, 0, coflow.owner_ptr, coflow.source, coflow.destination, coflow.bytes, coflow.path,
        load[:0], load[:0], ticks_per_byte(fabric.capacity), load, last, first, done, arrival,
    )  # fmt: skip
    assert end == arrival[2] == 11_000 and done[0] == 1_000 and done[3] == 0


def test_the_busiest_port_of_a_byte_matrix() -> None:
    rng = np.random.default_rng(3)
    matrix, near = rng.integers(0, 1000, (4, 6, 6)), np.arange(6)[:, None] // 3 == np.arange(6) // 3
    ports = [
        (matrix * here * ~np.eye(6, dtype=bool)).sum(axis=axis).max(axis=1) / rate
        for here, rate in ((near, 9.0), (~near, 1.0))
        for axis in (1, 2)
    ]
    found = matrix_seconds(matrix, np.repeat([0, 1], 3).astype(np.int32), 9.0, 1.0)
    assert found == pytest.approx(np.max(ports, axis=0))


def test_an_unknown_algorithm_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="did you mean 'deepep_normal'"):
        all_to_all.find("deepep_norml")


def test_a_level_that_an_algorithm_does_not_say_it_reads_is_not_taken_for_nothing() -> None:
    """Where nobody asks for merged copies they are not counted, and are of no size."""
    with pytest.raises(BrokenInvariant, match="are all levels of Copies in `reads`"):
        added_up(np.zeros((3, 0, 4), dtype=np.int64), np.arange(4)[:, None], np.arange(4), 4)
