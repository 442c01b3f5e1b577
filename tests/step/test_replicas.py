"""Which replica a token takes: the shares that placements are planned with are those that the step plays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from moesim import streams
from moesim.layout import Placement
from moesim.placement.dispatch.ways import slot_shares
from moesim.routing.slots import _choose, _choose_at_once, coded, count_pooled, packed_turns, slot_table, turns
from moesim.step.dispatch import EVEN, FIRST, MODULO, NEAREST, candidates
from moesim.step.traffic import choose_slots

NODE = np.array([0, 0, 1, 1], dtype=np.int32)
PLACE = Placement(np.array([[0, 1, 0, 2, 0, 1]]), np.array([[0, 1, 1, 2, 2, 3]]), 3, 4)


class Sent(NamedTuple):
    """40,000 tokens, as many from each rank."""

    token_rank: npt.NDArray[np.int32]
    token_request: npt.NDArray[np.int64]
    token_position: npt.NDArray[np.int64]


def test_candidates_by_hand() -> None:
    """Expert 0 stands in slots 0, 2 and 4 on ranks 0, 1 and 2; expert 1 in slots 1 and 5 on ranks 1 and 3."""
    slots, number = candidates(PLACE, 0, NODE, FIRST)
    assert slots[:, :2, 0].tolist() == [[0, 1], [2, 1], [4, 5], [4, 5]] and (number[:, :2] == 1).all()
    slots, number = candidates(PLACE, 0, NODE, MODULO)
    assert slots[:, :2, 0].tolist() == [[0, 1], [2, 5], [4, 1], [0, 5]]


@pytest.mark.parametrize("way", [EVEN, NEAREST, FIRST, MODULO])
def test_the_step_s_rows_are_the_planned_shares(way: int) -> None:
    number = np.arange(40_000)
    sent = Sent((number % 4).astype(np.int32), number // 4, number % 4)
    for expert in range(3):
        experts = np.full((len(number), 1), expert, dtype=np.uint16)
        slots = choose_slots(experts, sent, PLACE, 0, sent.token_rank, NODE, way=way)
        shares = slot_shares(PLACE.slot_expert[0].astype(np.int64), PLACE.slot_rank[0].astype(np.int64), NODE, 3, way)
        found = np.bincount(slots.ravel(), minlength=6) / len(number)
        assert found == pytest.approx(np.where(PLACE.slot_expert[0] == expert, shares, 0), abs=0.01)


def test_compiled_and_whole_array_choices_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    experts = rng.integers(0, 5, (300, 3)).astype(np.uint16)  # 3 and 4 stand for no expert
    row, number = rng.integers(0, 4, 300).astype(np.int32), np.arange(300)
    slots, allowed = candidates(PLACE, 0, NODE, NEAREST)
    turn = turns(number // 7, number % 7, slots.shape[2])
    right = [
        [-1 if e >= 3 else slots[r, e, turn[t, allowed[r, e]]] for e in experts[t]] for t, r in enumerate(row.tolist())
    ]
    for choose in (_choose, _choose_at_once):
        found = np.empty((300, 3), dtype=np.int32)
        choose(experts, row, turn, np.ascontiguousarray(slots), allowed, found)
        assert found.tolist() == right


@pytest.mark.parametrize("replicas", [1, 3, 16])
def test_tokens_from_a_pool_are_counted_where_a_plain_loop_sends_them(replicas: int) -> None:
    """Expert 0 has so many replicas, one to a rank, in slots that are not in the order of experts; the last is none."""
    rng, number = np.random.default_rng(replicas), np.arange(90)
    held, ranks = rng.permutation(np.array([0] * replicas + [1, 2], dtype=np.int32)), replicas + 2
    place = Placement(held[None], np.arange(ranks, dtype=np.int32)[None], 3, ranks)
    pool, ticket = rng.integers(0, 4, (1, 8, 2)).astype(np.uint16), rng.integers(0, 1 << 62, 90).astype(np.uint64)
    table = slot_table(place.slot_expert, place.replicas, place.slot_rank)
    rows, pairs = np.zeros((1, ranks), np.int64), np.zeros((1, 2, ranks), np.int64)
    count_pooled(coded(pool, table), ticket, packed_turns(number, number % 5, replicas), np.array([0, 40, 90]),
                 table.rank, rows, pairs)  # fmt: skip
    turn, right = turns(number, number % 5, replicas), np.zeros((2, ranks), np.int64)
    picked = (hashed(ticket) % np.uint64(8)).astype(np.int64)
    for token in range(90):
        for expert in pool[0, picked[token]].tolist():
            if expert < 3:
                slot = np.flatnonzero(held == expert)[turn[token, place.replicas[0, expert]]]
                right[int(token >= 40), slot] += 1
    assert pairs[0].tolist() == right.tolist() and rows[0][table.place[0]].tolist() == right.sum(axis=0).tolist()


def hashed(ticket: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Layer 0 hashed in after the ticket, as `hash_ints` does with one column more."""
    return np.array([int(streams.hash_ints(int(one), 0)) for one in ticket], dtype=np.uint64)
