"""Collectives: closed forms on a switch, bytes counted by hand, and start-ups that follow a measured table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.costs import CommunicationCost, Steps
from moesim.hardware import load_cluster
from moesim.network import Collective, Fabric, Flows, Group, groups
from moesim.network.collectives import (
    all_gather,
    all_reduce,
    broadcast,
    exchange,
    point_to_point,
    reduce_scatter,
    ring_seconds,
    tree_all_reduce,
)
from moesim.network.fluid import finish_times

CLUSTER = load_cluster("dgx-h100", nodes=2)
GROUP = Group(CLUSTER, np.arange(16, dtype=np.int32))
NODE = np.arange(8, dtype=np.int32)[None, :]
RATE, ALPHA = 450e9, 2e-6


def seconds(collective: Collective) -> float:
    """Alone on the cluster, by the fluid network."""
    cost = CommunicationCost(alpha=0.0, per_message=ALPHA)
    fabric = Fabric(CLUSTER, {"nccl": cost, "nccl_ring": cost})
    coflow = fabric.collective(collective, GROUP)
    used = coflow.path >= 0
    ptr = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
    return coflow.alpha + float(finish_times(fabric.capacity, ptr, coflow.path[used], coflow.bytes).max(initial=0.0))


def sent(collective: Collective, lanes: int = 16) -> list[int]:
    carried = np.bincount(collective.flows.source, collective.flows.bytes, lanes)
    return [int(size) for size in carried]


@given(st.integers(1, 8), st.integers(1, 10**6))
def test_rings_take_their_closed_form_on_a_switch(width: int, part: int) -> None:
    parts, ring = np.full(16, part), NODE[:, :width]
    for passes, collective in ((1, all_gather), (1, reduce_scatter), (2, all_reduce)):
        expected = ring_seconds(passes, width, width * part, RATE, ALPHA)
        assert seconds(collective(GROUP, ring, parts)) == pytest.approx(expected, abs=1e-15)


def test_a_published_ring_all_reduce() -> None:
    """8 ranks, 1 MB, 50 GB/s, 5 us a step: 2 * 7 * (5 us + 1 MB / (8 * 50 GB/s)) = 105 us."""
    assert ring_seconds(2, 8, 1e6, 50e9, 5e-6) == pytest.approx(105e-6)


def test_a_ring_of_uneven_parts_moves_each_part_over_all_hops_but_one() -> None:
    parts = np.arange(16) + 1
    ring = np.array([[2, 0, 1]], dtype=np.int32)  # 3, 1 and 2 bytes
    assert sent(all_gather(GROUP, ring, parts), 3) == [4, 3, 5]  # all but the successor's
    assert sent(reduce_scatter(GROUP, ring, parts), 3) == [5, 4, 3]  # all but one's own
    assert sum(sent(all_reduce(GROUP, ring, parts))) == 2 * 2 * 6


def test_groups_of_a_grid_of_ranks() -> None:
    assert groups(8, 2).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups(8, 2, 4).tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


@given(st.integers(1, 16), st.integers(1, 1001))
def test_two_trees_reach_everyone_with_the_bytes_of_a_ring(ranks: int, size: int) -> None:
    collective = tree_all_reduce(GROUP, np.arange(ranks, dtype=np.int32)[None, :], size)
    flows = collective.flows
    assert int(flows.bytes.sum()) == 2 * (ranks - 1) * size
    pairs = set(zip(flows.source.tolist(), flows.destination.tolist(), strict=True))
    reached = {0}
    for _ in range(ranks):
        reached |= {b for a, b in pairs if a in reached}
    assert reached == set(range(ranks))
    assert max(sent(collective)) <= 2 * size + 1 and collective.messages == 2 * int(np.ceil(np.log2(ranks)))


def test_a_tree_has_fewer_rounds_than_a_ring_and_moves_more_through_a_port() -> None:
    whole = np.arange(16, dtype=np.int32)[None, :]
    small_ring = all_reduce(GROUP, whole, np.full(16, 1))
    assert seconds(tree_all_reduce(GROUP, whole, 16)) < seconds(small_ring)
    on_node = seconds(tree_all_reduce(GROUP, NODE, 8_000_000))
    assert on_node == pytest.approx(6 * ALPHA + 2 * 8e6 / RATE)


def test_a_broadcast_goes_down_its_chain_and_messages_go_side_by_side() -> None:
    chain = broadcast(GROUP, NODE, 4500)
    assert seconds(chain) == pytest.approx(7 * ALPHA + 4500 / RATE)
    assert sent(chain)[:9] == [4500] * 7 + [0, 0]
    pairs = point_to_point(GROUP, np.array([0, 0], np.int32), np.array([1, 9], np.int32), np.array([900, 50]))
    assert seconds(pairs) == pytest.approx(ALPHA + 900 / RATE)


def test_an_exchange_has_a_message_to_each_peer() -> None:
    zero = np.zeros(3, np.int32)
    flows = Flows(zero, zero, np.array([1, 2, 9], np.int32), np.array([5, 0, 7]))
    assert (exchange(flows).messages, exchange(flows).ranks) == (2, 3)
    assert exchange(flows, message_bytes=2).messages == 3 + 4


def test_a_port_handles_the_messages_of_all_gpus_that_share_it() -> None:
    """Two lanes with 2 and 3 peers behind one port: 5 messages in turn; what stays in the node is no part of it."""
    source = np.array([0, 0, 1, 1, 1, 1], np.int32)
    flows = Flows(source, source, np.array([8, 9, 8, 9, 10, 2], np.int32), np.full(6, 5))
    port = np.array([7, 7, 7, 7, 7, -1], np.int32)
    assert exchange(flows, port=port).messages == 5 and exchange(flows).messages == 4
    assert exchange(flows, 2, port).messages == 5 * 3


def test_a_table_of_start_ups_replaces_the_constant() -> None:
    cost = CommunicationCost(
        alpha=1.0,
        per_message=0.5,
        steps=(
            Steps("all_gather", 4, (1000.0, 2000.0, 4000.0), (5.0, 9.0, 8.0)),
            Steps("all_gather", 8, (1000.0,), (20.0,)),
        ),
    )
    four = [cost.startup("all_gather", 3, 1, size) for size in (0, 1000, 1500, 4000, 8000)]
    assert four == [5.0, 5.0, 7.0, 8.0, 6.0]  # the last line goes on
    assert cost.startup("all_gather", 64, 63, 5000) == 20.0 + 56 * 0.5  # none larger: the largest, and further messages
    assert cost.startup("all_reduce", 4, 1, 1000) == 1.5


def test_the_table_for_exactly_as_many_ranks_counts_and_crossings_add_to_it() -> None:
    tables = tuple(Steps("all_gather", ranks, (100.0,), (float(ranks),)) for ranks in (2, 4, 8))
    cost = CommunicationCost(alpha=0.25, per_message=0.5, per_crossing=3.0, steps=tables)
    assert [cost.startup("all_gather", ranks, ranks - 1, 100) for ranks in (2, 3, 4, 5, 8)] == [2, 4, 4, 8, 8]
    assert cost.startup("all_gather", 8, 7, 100, further=7, crossings=1) == 8 + 7 * 0.5 + 3
    assert (
        cost.startup("all_gather", 1, 0, 100, crossings=2) == 0.25 + 2 * 3
    )  # one GPU in each node: no table of NVLink
    assert cost.startup("all_gather", 1, 0, 100) == 0
