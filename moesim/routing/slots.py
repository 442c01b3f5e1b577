"""Rows of slots and between ranks, of tokens whose experts stand in a table: all layers in one compiled pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.compiled import inlined, interpreted, njit

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


class SlotTable(NamedTuple):
    """slot uint16[layers, (experts + 1) x most replicas]: those of each expert in a row, the number of slots for no
    expert; replicas uint8[layers, experts + 1]; rank int32[layers, slots].
    """

    slot: npt.NDArray[np.uint16]
    replicas: npt.NDArray[np.uint8]
    rank: Int32s


def slot_table(expert_slots: Int32s, replicas: Int64s, slot_rank: Int32s) -> SlotTable:
    """int32[layers, experts, most replicas], int64[layers, experts], int32[layers, slots] -> all of it."""
    slot = np.pad(expert_slots, ((0, 0), (0, 1), (0, 0)), constant_values=slot_rank.shape[1]).astype(np.uint16)
    return SlotTable(
        slot.reshape(len(slot), -1), np.pad(replicas, ((0, 0), (0, 1)), constant_values=1).astype(np.uint8), slot_rank
    )


def turns(request: Int64s, position: Int64s, most: int) -> npt.NDArray[np.uint8]:
    """int64[T] each -> uint8[T, most + 1]: which of r replicas a token takes, by a hash of (request, position)."""
    found = np.zeros((len(request), most + 1), dtype=np.uint8)
    if most > 1:
        ticket = streams.hash_ints(streams.key("dispatch", "replica"), request, position) >> np.uint64(16)
        for replicas in range(2, most + 1):
            found[:, replicas] = ticket % np.uint64(replicas)
    return found


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
    a SlotTable -> added to rows int64[layers, slots], pairs int64[layers, R, ranks of the placement].
    """
    counted = np.zeros(rows.shape[1] + 1, np.int64)
    for layer in range(rows.shape[0]):
        for token in range(source.shape[0]):
            _count(table[row[token], layer], slots.slot[layer], slots.replicas[layer], turn[token], counted)
            if token + 1 == source.shape[0] or source[token + 1] != source[token]:
                _add(counted, slots.rank[layer], rows[layer], pairs[layer, source[token]])


@njit
def count_pooled(
    pool: Any, ticket: Any, source: Any, turn: Any, slots: Any, rows: Any, pairs: Any
) -> None:  # fmt: skip
    """The same of tokens that a hash of (ticket uint64[T], layer) picks from pool uint16[layers, N, k]; N: 2 ** n."""
    counted, mask = np.zeros(rows.shape[1] + 1, np.int64), np.uint64(pool.shape[1] - 1)
    for layer in range(rows.shape[0]):
        for token in range(source.shape[0]):
            row = streams_hash(ticket[token], np.uint64(layer)) & mask
            _count(pool[layer, row], slots.slot[layer], slots.replicas[layer], turn[token], counted)
            if token + 1 == source.shape[0] or source[token + 1] != source[token]:
                _add(counted, slots.rank[layer], rows[layer], pairs[layer, source[token]])


@njit
def count_merged(
    table: Any, row: Any, source: Any, turn: Any, slots: Any, ways: int, node_of: Any, devices: Any, nodes: Any
) -> None:  # fmt: skip
    """The same of tokens in a table, a copy of each for every lane and for every node that holds any of its experts:
    added to devices int64[layers, R, R], nodes int64[layers, R, N]. ways: lanes that share an expert of one of the
    placement's ranks, of which a token's goes to the one in its source's place; node_of int32[R].
    """
    seen_lane, seen_node = np.full(devices.shape[2], -1, np.int64), np.full(nodes.shape[2], -1, np.int64)
    most = np.uint64(turn.shape[1] - 1)
    for layer in range(devices.shape[0]):
        slot, replicas, rank = slots.slot[layer], slots.replicas[layer], slots.rank[layer]
        none = np.uint64(replicas.shape[0] - 1)
        for token in range(source.shape[0]):
            lane, once = source[token], layer * source.shape[0] + token
            for choice in range(table.shape[2]):
                expert = np.uint64(table[row[token], layer, choice])
                if expert >= none:
                    continue
                holder = rank[slot[expert * most + np.uint64(turn[token, replicas[expert]])]]
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
def _count(experts: Any, slot: Any, replicas: Any, turn: Any, counted: Any) -> None:
    """uint16[k] experts -> one more in their slots; the last of `counted` holds what has none."""
    none, most = np.uint64(replicas.shape[0] - 1), np.uint64(turn.shape[0] - 1)
    for choice in range(experts.shape[0]):
        expert = min(np.uint64(experts[choice]), none)
        counted[slot[expert * most + np.uint64(turn[replicas[expert]])]] += 1


@inlined
def _add(counted: Any, slot_rank: Any, rows: Any, pairs: Any) -> None:
    """What a source has counted, added up by slot and by rank; emptied."""
    for place in range(rows.shape[0]):
        rows[place] += counted[place]
        pairs[slot_rank[place]] += counted[place]
    counted[:] = 0
