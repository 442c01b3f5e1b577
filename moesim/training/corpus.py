"""Corpus: rows and copies of every different sequence that a job reads, counted once; micro-batches are sums."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.layout import Placement
from moesim.network.copies import Copies
from moesim.routing.sources.in_places import Limit
from moesim.routing.sources.sequences import Sequences

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


class Found(NamedTuple):
    """Micro-batches in some layers: by_rank int64[micro-batches x layers, R, slots of a rank] rows; copies likewise."""

    by_rank: Int64s
    copies: Copies


class Corpus:
    """Tokens `first` to `first` + `tokens` - 1 of each of the sequences, on an island of ranks on nodes int32[R]; the
    levels of copies that are read; limit: of each rank's rows an expert takes so many, which knows of pairs alone.
    """

    def __init__(
        self, source: Sequences, placement: Placement, node: Int32s, stretch: tuple[int, int], levels: Collection[str],
        limit: Limit | None = None,
    ) -> None:  # fmt: skip
        self._limit, self._slot = limit, placement.expert_slots[:, :, 0]
        self._source, self._node, (first, self._tokens) = source, node, stretch
        shape = (source.moe_layers, source.number)
        lanes, nodes = len(node), int(node.max()) + 1
        self._rows = np.zeros((*shape, placement.num_slots), dtype=np.int32)
        self._pairs, self._devices, self._nodes = (
            np.zeros((*shape, width if level in levels else 0), dtype=np.int32)
            for level, width in (("pairs", lanes), ("devices", lanes), ("nodes", nodes))
        )
        sequence = np.repeat(np.arange(source.number), self._tokens)
        position = np.tile(np.arange(first, first + self._tokens), source.number)
        for layer in range(source.moe_layers):
            count_sequences(
                source.inner.experts(source.first + layer, sequence, position), self._tokens,
                placement.expert_slots[layer][:, 0], placement.slot_rank[layer], node, self._rows[layer],
                self._pairs[layer], self._devices[layer], self._nodes[layer],
            )  # fmt: skip

    def of(self, layers: slice, sequences: Int64s) -> Found:
        """sequences int64[micro-batches, R, n]: those that each rank reads, as the job numbers them."""
        read = self._source.read(sequences)
        if self._limit:
            return self._in_places(self._limit, layers, read)
        times = np.zeros((len(read), self._source.number))
        np.add.at(times, (np.arange(len(read))[:, None], read.reshape(len(read), -1)), 1.0)
        rows = times @ self._rows[layers].astype(np.float64)  # whole numbers below 2 ** 53
        by_rank = rows.transpose(1, 0, 2).reshape(-1, len(self._node), rows.shape[2] // len(self._node))
        pairs, devices, nodes = (_gathered(table[layers], read) for table in (self._pairs, self._devices, self._nodes))
        return Found(by_rank.astype(np.int64), Copies(pairs, devices, nodes, self._node, self._sent(read)))

    def _in_places(self, limit: Limit, layers: slice, read: Int64s) -> Found:
        """Rows that each rank sends to each slot, cut to the places that there are, or padded up to them."""
        own, places = _gathered(self._rows[layers], read), self._places(limit, read)
        sent = np.full_like(own, places) if limit.pad else np.minimum(own, places)
        slots = sent.reshape(*own.shape[:2], len(self._node), -1)
        none = np.zeros((*own.shape[:2], 0), dtype=np.int64)
        return Found(slots.sum(axis=1), Copies(slots.sum(axis=3), none, none, self._node, self._sent(read)))

    def chosen(self, sequences: Int64s) -> Int64s:
        """int64[micro-batches, R, n] -> int64[layers, experts]: rows that tokens choose."""
        times = np.bincount(self._source.read(sequences).ravel(), minlength=self._source.number)
        return self._by_expert(np.tensordot(times, self._rows.astype(np.int64), axes=(0, 1)))

    def load(self, sequences: Int64s) -> Int64s:
        """The same, as far as there are places."""
        if self._limit is None:
            return self.chosen(sequences)
        read = self._source.read(sequences)
        places = self._places(self._limit, read)
        each = [np.minimum(_gathered(self._rows, one[None]), places).sum(axis=1) for one in read]
        return self._by_expert(np.sum(each, axis=0))

    def _by_expert(self, slots: Int64s) -> Int64s:
        """int64[layers, slots] -> int64[layers, experts]."""
        found: Int64s = np.take_along_axis(slots, self._slot.astype(np.int64), axis=1)
        return found

    def _places(self, limit: Limit, read: Int64s) -> int:
        """Of a rank's rows in a micro-batch at each expert."""
        return int(limit.places(self._sent(read)[0] * self._source.top_k, self._rows.shape[2]))

    def _sent(self, read: Int64s) -> Int64s:
        """int64[R]: tokens of each rank in a micro-batch."""
        return np.full(read.shape[1], read.shape[2] * self._tokens)


def _gathered(table: Int32s, read: Int64s) -> Int64s:
    """int32[layers, sequences, n], int64[micro-batches, R, m] -> int64[micro-batches x layers, R, n]."""
    of_layers = np.ascontiguousarray(table.transpose(1, 0, 2))
    found = np.zeros((len(read), table.shape[0], read.shape[1], table.shape[2]), dtype=np.int64)
    for which in range(read.shape[2]):
        found += of_layers[read[:, :, which]].transpose(0, 2, 1, 3)
    return found.reshape(len(read) * table.shape[0], *found.shape[2:])


@njit
def count_sequences(
    experts: Any, tokens: int, slot: Any, rank: Any, node: Any, rows: Any, pairs: Any, devices: Any, nodes: Any
) -> None:  # fmt: skip
    """experts uint16[sequences x tokens, k], slot int32[experts], rank int32[slots], node int32[R] -> added to rows
    int32[sequences, slots], pairs and devices int32[sequences, R], nodes int32[sequences, N], as `Copies` count them;
    what has no columns is not counted.
    """
    seen_device, seen_node = np.full(devices.shape[1], -1, np.int64), np.full(nodes.shape[1], -1, np.int64)
    choices, many = experts.shape[1], np.uint64(slot.shape[0])
    for sequence in range(rows.shape[0]):
        own, to, alone, near = rows[sequence], pairs[sequence], devices[sequence], nodes[sequence]
        for token in range(sequence * tokens, (sequence + 1) * tokens):
            for choice in range(choices):
                expert = np.uint64(experts[token, choice])
                if expert >= many:
                    continue
                device = rank[slot[expert]]
                own[slot[expert]] += 1
                if to.shape[0]:
                    to[device] += 1
                if alone.shape[0] and seen_device[device] != token:
                    seen_device[device] = token
                    alone[device] += 1
                if near.shape[0] and seen_node[node[device]] != token:
                    seen_node[node[device]] = token
                    near[node[device]] += 1
