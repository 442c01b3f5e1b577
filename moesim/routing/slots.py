"""Rows of slots and between ranks, of tokens whose experts stand in a table: all layers in one compiled pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.compiled import inlined, interpreted, njit

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


SHIFT = 6  # bits of a code below the place: where in a token's packed turns that of its expert stands
TURN = 4  # bits of a packed turn
MOST_PACKED = 64 // TURN  # replicas of an expert whose turns fit in one number


class SlotTable(NamedTuple):
    """Slots in the order of what they hold, replicas side by side: places. first uint16[layers, experts + 1]: the first
    place of each expert, the number of places for no expert; replicas uint8[layers, experts + 1]; rank int32[layers,
    slots] and place int64[layers, slots]: the rank of a place, the place of a slot.
    """

    first: npt.NDArray[np.uint16]
    replicas: npt.NDArray[np.uint8]
    rank: Int32s
    place: Int64s


def slot_table(slot_expert: Int32s, replicas: Int64s, slot_rank: Int32s) -> SlotTable:
    """int32[layers, slots] (-1: no slot), int64[layers, experts], int32[layers, slots] -> all of it."""
    slots = slot_rank.shape[1]
    order = np.argsort(np.where(slot_expert >= 0, slot_expert, replicas.shape[1]), axis=1, kind="stable")
    first = np.pad(np.cumsum(replicas, axis=1) - replicas, ((0, 0), (0, 1)), constant_values=slots)
    many = np.pad(replicas, ((0, 0), (0, 1)), constant_values=1).astype(np.uint8)
    rank = np.ascontiguousarray(np.take_along_axis(slot_rank, order, axis=1))
    return SlotTable(first.astype(np.uint16), many, rank, np.argsort(order, axis=1))


def coded(pool: npt.NDArray[np.uint16], table: SlotTable) -> npt.NDArray[Any]:
    """pool uint16[layers, N, k] -> uint16 or uint32[layers, N, k]: the first place of each choice's expert, and in the
    SHIFT bits below it where its turn stands. Experts have at most MOST_PACKED replicas.
    """
    code = table.first.astype(np.uint32) << SHIFT | TURN * (table.replicas.astype(np.uint32) - 1)
    code = code.astype(np.uint16 if int(code.max()) < 1 << 16 else np.uint32)
    found = np.empty(pool.shape, dtype=code.dtype)
    _code(pool, code, found)
    return found


def turns(request: Int64s, position: Int64s, most: int) -> npt.NDArray[np.uint8]:
    """int64[T] each -> uint8[T, most + 1]: which of r replicas a token takes, by a hash of (request, position)."""
    found = np.zeros((len(request), most + 1), dtype=np.uint8)
    for replicas, turn in _turns(request, position, most):
        found[:, replicas] = turn
    return found


def packed_turns(request: Int64s, position: Int64s, most: int) -> npt.NDArray[np.uint64]:
    """`turns` as uint64[T]: TURN bits each, those of one replica lowest; most is MOST_PACKED or less."""
    found = np.zeros(len(request), dtype=np.uint64)
    for replicas, turn in _turns(request, position, most):
        found |= turn << np.uint64(TURN * (replicas - 1))
    return found


def _turns(request: Int64s, position: Int64s, most: int) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """2, 3, ... replicas and the turns of all tokens among so many."""
    if most > 1:
        ticket = streams.hash_ints(streams.key("dispatch", "replica"), request, position) >> np.uint64(16)
        yield from ((replicas, ticket % np.uint64(replicas)) for replicas in range(2, most + 1))


def chosen(
    experts: npt.NDArray[np.uint16], row: Int32s, turn: npt.NDArray[np.uint8], slots: Int32s, replicas: Int64s
) -> Int32s:
    """uint16[T, k] experts, int32[T] row, uint8[T, most + 1] turn of each token; slots int32[rows, experts, most] and
    their number int64[rows, experts] -> int32[T, k] slots, -1 where there is no expert.
    """
    found = np.empty(experts.shape, dtype=np.int32)
    choose = _choose_at_once if interpreted() else _choose
    choose(experts, row, turn, np.ascontiguousarray(slots), replicas, found)
    return found


@njit
def _choose(experts: Any, row: Any, turn: Any, slots: Any, replicas: Any, found: Any) -> None:
    """One pass: an array for each of the three lookups would cost seven times as much."""
    for token in range(experts.shape[0]):
        own = row[token]
        for choice in range(experts.shape[1]):
            expert = experts[token, choice]
            known = expert < slots.shape[1]
            found[token, choice] = slots[own, expert, turn[token, replicas[own, expert]]] if known else -1


def _choose_at_once(
    experts: npt.NDArray[np.uint16], row: Int32s, turn: npt.NDArray[np.uint8], slots: Int32s, replicas: Int64s,
    found: Int32s,
) -> None:  # fmt: skip
    """`_choose` in whole-array operations, for a process in which it is not compiled."""
    held, own = np.minimum(experts, slots.shape[1] - 1), row[:, None]
    which = np.take_along_axis(turn, replicas[own, held], axis=1)
    found[:] = np.where(experts < slots.shape[1], slots[own, held, which], -1)


@njit
def count_recorded(
    table: Any, row: Any, source: Any, turn: Any, slots: Any, rows: Any, pairs: Any
) -> None:  # fmt: skip
    """table uint16[N, layers, k], row int64[T] of it; source int32[T] ascending, turn uint8[T, most + 1] of each token;
    a SlotTable -> added to rows int64[layers, slots] by place, pairs int64[layers, R, ranks of the placement].
    """
    counted = np.zeros(rows.shape[1] + 1, np.int64)
    for layer in range(rows.shape[0]):
        for token in range(source.shape[0]):
            _count(table[row[token], layer], slots.first[layer], slots.replicas[layer], turn[token], counted)
            if token + 1 == source.shape[0] or source[token + 1] != source[token]:
                _add(counted, slots.rank[layer], rows[layer], pairs[layer, source[token]])


@njit
def count_pooled(pool: Any, ticket: Any, turn: Any, begin: Any, rank: Any, rows: Any, pairs: Any) -> None:
    """The same of tokens that a hash of (ticket uint64[T], layer) picks from a `coded` pool [layers, N, k], N: 2 ** n;
    turn uint64[T] packed; those of source r are begin[r]:begin[r + 1]; rank as in a SlotTable.

    Three short loops, as what picks and adds is done for several tokens at once: half the time of one loop.
    """
    tokens, choices, mask = ticket.shape[0], pool.shape[2], np.uint64(pool.shape[1] - 1)
    counted, picked = np.zeros(rows.shape[1] + 1, np.int64), np.empty(tokens, np.uint32)
    place = np.empty(tokens * choices, pool.dtype)
    for layer in range(pool.shape[0]):
        for token in range(tokens):
            picked[token] = streams_hash(ticket[token], np.uint64(layer)) & mask
        for token in range(tokens):
            code, mine = pool[layer, picked[token]], turn[token]
            for choice in range(choices):
                at = code[choice]
                place[token * choices + choice] = (at >> SHIFT) + ((mine >> (at & 63)) & 15)
        for source in range(begin.shape[0] - 1):
            for one in range(begin[source] * choices, begin[source + 1] * choices):
                counted[place[one]] += 1
            _add(counted, rank[layer], rows[layer], pairs[layer, source])


@njit
def _code(pool: Any, code: Any, found: Any) -> None:
    none = np.uint64(code.shape[1] - 1)
    for layer in range(pool.shape[0]):
        for token in range(pool.shape[1]):
            for choice in range(pool.shape[2]):
                found[layer, token, choice] = code[layer, min(np.uint64(pool[layer, token, choice]), none)]


@njit
def count_merged(
    table: Any, row: Any, source: Any, turn: Any, slots: Any, ways: int, node_of: Any, devices: Any, nodes: Any
) -> None:  # fmt: skip
    """The same of tokens in a table, a copy of each for every lane and for every node that holds any of its experts:
    added to devices int64[layers, R, R], nodes int64[layers, R, N]. ways: lanes that share an expert of one of the
    placement's ranks, of which a token's goes to the one in its source's place; node_of int32[R].
    """
    seen_lane, seen_node = np.full(devices.shape[2], -1, np.int64), np.full(nodes.shape[2], -1, np.int64)
    for layer in range(devices.shape[0]):
        first, replicas, rank = slots.first[layer], slots.replicas[layer], slots.rank[layer]
        none = np.uint64(replicas.shape[0] - 1)
        for token in range(source.shape[0]):
            lane, once = source[token], layer * source.shape[0] + token
            for choice in range(table.shape[2]):
                expert = np.uint64(table[row[token], layer, choice])
                if expert >= none:
                    continue
                holder = rank[first[expert] + turn[token, replicas[expert]]]
                target = holder * ways + lane % ways
                if seen_lane[target] != once:
                    seen_lane[target] = once
                    devices[layer, lane, target] += 1
                if seen_node[node_of[target]] != once:
                    seen_node[node_of[target]] = once
                    nodes[layer, lane, node_of[target]] += 1


@njit
def from_pool(pool: Any, ticket: Any, found: Any) -> None:
    """The tokens that a hash picks from pool uint16[layers, N, k] -> found uint16[T, layers, k]; N: 2 ** n."""
    mask = np.uint64(pool.shape[1] - 1)
    for token in range(found.shape[0]):
        for layer in range(found.shape[1]):
            found[token, layer] = pool[layer, streams_hash(ticket[token], np.uint64(layer)) & mask]


@inlined
def streams_hash(state: Any, column: Any) -> Any:
    """One column more of `streams.hash_ints`, uint64 each."""
    mixed = state + np.uint64(0x9E3779B97F4A7C15) + column
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@inlined
def _count(experts: Any, first: Any, replicas: Any, turn: Any, counted: Any) -> None:
    """uint16[k] experts -> one more in their places; the last of `counted` holds what has none."""
    none = np.uint64(replicas.shape[0] - 1)
    for choice in range(experts.shape[0]):
        expert = min(np.uint64(experts[choice]), none)
        counted[np.uint64(first[expert]) + np.uint64(turn[replicas[expert]])] += 1


@inlined
def _add(counted: Any, place_rank: Any, rows: Any, pairs: Any) -> None:
    """What a source has counted, added up by place and by rank; emptied. Neighbours are often of one rank, so their sum
    is kept while the rank stays the same.
    """
    rank, many = place_rank[0], np.int64(0)
    for place in range(rows.shape[0]):
        rows[place] += counted[place]
        if place_rank[place] != rank:
            pairs[rank] += many
            rank, many = place_rank[place], np.int64(0)
        many += counted[place]
    pairs[rank] += many
    counted[:] = 0
