"""Relabelling and migration: fewest experts move, no load changes, bytes add up."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.costs import load_costs
from moesim.hardware import load_cluster
from moesim.layout import Placement
from moesim.network import Fabric
from moesim.placement.migration import migrate, moves_between
from moesim.placement.relabel import held_by, relabel, roles

Ints = npt.NDArray[np.int64]
ONE_NODE = np.zeros(4, dtype=np.int64)
TWO_NODES = np.array([0, 0, 1, 1])


def random_placement(seed: int, layers: int = 2, experts: int = 8, ranks: int = 4, redundant: int = 4) -> Placement:
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.r_[np.arange(experts), rng.integers(0, experts, redundant)]) for _ in range(layers)]
    owner = np.repeat(np.arange(ranks, dtype=np.int32), (experts + redundant) // ranks)
    return Placement(np.stack(rows).astype(np.int32), np.tile(owner, (layers, 1)), experts, ranks)


def bundles(placement: Placement, layer: int) -> list[tuple[int, ...]]:
    """What each rank holds, in no order of ranks."""
    slots = placement.slot_expert[layer].reshape(placement.num_ranks, -1)
    return sorted(tuple(sorted(row)) for row in slots.tolist())


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    cluster = load_cluster("dgx-h100", nodes=2)
    return Fabric(cluster, load_costs("h100_sxm", cluster.devices[0]).communication)


@given(st.integers(0, 10**6))
def test_relabelling_is_the_best_of_all_permutations_on_one_node(seed: int) -> None:
    before, after = random_placement(seed), random_placement(seed + 1)
    new = relabel(before, after, ONE_NODE)
    for layer in range(2):
        had, planned = held_by(before, layer), held_by(after, layer)
        best = max(int((had & planned[list(order)]).sum()) for order in permutations(range(4)))
        assert int((had & held_by(new, layer)).sum()) == best
        assert bundles(new, layer) == bundles(after, layer)  # only names changed


@given(st.integers(0, 10**6))
def test_relabelling_keeps_experts_together_that_shared_a_node(seed: int) -> None:
    before, after = random_placement(seed), random_placement(seed + 1)
    role = roles(held_by(before, 0), held_by(after, 0), TWO_NODES, ONE_NODE)
    assert sorted(role.tolist()) == [0, 1, 2, 3]
    assert TWO_NODES[role[0]] == TWO_NODES[role[1]] and TWO_NODES[role[2]] == TWO_NODES[role[3]]


@given(st.integers(0, 10**6))
def test_a_placement_relabelled_to_itself_moves_nothing(seed: int) -> None:
    before = random_placement(seed)
    swapped = before.slot_expert.reshape(2, 4, 3)[:, [2, 3, 0, 1], ::-1].reshape(2, 12)
    after = Placement(np.ascontiguousarray(swapped), before.slot_rank, 8, 4)
    new = relabel(before, after, TWO_NODES)
    assert len(moves_between(before, new, TWO_NODES)) == 0
    assert np.array_equal(new.slot_expert, before.slot_expert)  # slot by slot


def test_ranks_of_another_kind_or_size_keep_their_roles() -> None:
    before, after = random_placement(1), random_placement(2)
    new = relabel(before, after, ONE_NODE, kind_of_rank=np.arange(4))
    assert bundles(new, 0) == bundles(after, 0)
    for rank in range(4):
        assert set(new.slot_expert[0, new.slot_rank[0] == rank]) == set(
            after.slot_expert[0, after.slot_rank[0] == rank]
        )
    owner = np.array([[0, 0, 1]], np.int32)
    uneven = Placement(np.array([[0, 1, 2]], np.int32), owner, 3, 2)
    wanted = Placement(np.array([[2, 1, 0]], np.int32), owner, 3, 2)
    assert relabel(uneven, wanted, np.zeros(2, np.int64)).slot_expert.tolist() == [[2, 1, 0]]


@given(st.integers(0, 10**6))
def test_every_new_expert_arrives_once_from_a_rank_that_had_it(seed: int) -> None:
    before, after = random_placement(seed), random_placement(seed + 1)
    moves = moves_between(before, after, TWO_NODES)
    arrived = {(int(a), int(b), int(c)) for a, b, c in zip(moves.layer, moves.target, moves.expert, strict=True)}
    assert len(arrived) == len(moves)
    for layer in range(2):
        had, has = held_by(before, layer), held_by(after, layer)
        assert {(layer, int(r), int(e)) for r, e in np.argwhere(has & ~had)} == {m for m in arrived if m[0] == layer}
    for layer, expert, source, target in zip(moves.layer, moves.expert, moves.source, moves.target, strict=True):
        holders = np.flatnonzero(held_by(before, int(layer))[:, expert])
        assert source in holders
        near = TWO_NODES[holders] == TWO_NODES[target]
        assert not near.any() or TWO_NODES[source] == TWO_NODES[target]  # never over the slow links without need


def test_bytes_and_seconds_of_a_migration_by_hand(fabric: Fabric) -> None:
    """Ranks 0 and 15 swap their experts: one expert each way over the NICs, on paths that share nothing."""
    before = Placement.contiguous(1, 16, 16)
    swapped = before.slot_expert.copy()
    swapped[0, [0, 15]] = swapped[0, [15, 0]]
    made = migrate(before, Placement(swapped, before.slot_rank, 16, 16), fabric, 10**9)
    assert (len(made.moves), made.bytes, made.steps) == (2, 2 * 10**9, 1)
    assert made.sent[0, 15] == made.sent[15, 0] == 10**9
    slowest = min(fabric.capacity[link] for link in np.flatnonzero(made.link_bytes))
    alpha = fabric.communication["nccl"].startup("all_to_all", ranks=2, messages=1, sent=1e9)
    assert made.seconds == pytest.approx(alpha + 1e9 / slowest)
    assert made.stall_s == made.seconds


def test_layer_by_layer_takes_longer_in_all_and_stalls_each_step_less(fabric: Fabric) -> None:
    before, after = (random_placement(seed, layers=4, experts=32, ranks=16, redundant=16) for seed in (1, 2))
    at_once = migrate(before, after, fabric, 44_000_000)
    in_steps = migrate(before, after, fabric, 44_000_000, layers_per_step=1)
    assert np.array_equal(at_once.sent, in_steps.sent)
    assert in_steps.link_bytes == pytest.approx(at_once.link_bytes)
    assert in_steps.steps == 4
    assert in_steps.stall_s < at_once.stall_s <= in_steps.seconds * (1 + 1e-9)


def test_port_loads_never_exceed_the_fluid_network(fabric: Fabric) -> None:
    before, after = (random_placement(seed, experts=32, ranks=16, redundant=16) for seed in (3, 4))
    loads, fluid = (migrate(before, after, fabric, 44_000_000, network=level) for level in ("port_load", "fluid"))
    assert 0 < loads.seconds <= fluid.seconds * (1 + 1e-9)
    assert loads.link_bytes == pytest.approx(fluid.link_bytes)


def test_nothing_to_move_takes_no_time(fabric: Fabric) -> None:
    made = migrate(Placement.contiguous(2, 16, 16), Placement.contiguous(2, 16, 16), fabric, 10**9)
    assert (made.bytes, made.seconds, made.steps) == (0, 0.0, 0)
