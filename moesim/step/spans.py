"""Traffic of all layers at once: rows of slots and copies between the ranks of an island."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.network.copies import Copies, Level
from moesim.routing import Sampled
from moesim.routing.counts import Counts
from moesim.routing.slots import (
    MOST_PACKED,
    coded,
    count_merged,
    count_pooled,
    count_recorded,
    from_pool,
    packed_turns,
    slot_table,
    turns,
)
from moesim.routing.sources.replay import Recorded, Recording
from moesim.step.batch import Batch
from moesim.step.dispatch import EVEN
from moesim.step.plan import StepPlan
from moesim.step.traffic import traffic

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
MERGED: frozenset[Level] = frozenset(("devices", "nodes"))


class LayerTraffic(NamedTuple):
    """by_rank int64[layers, ranks of the placement, slots of a rank] rows; copies of all layers, at the levels that
    were asked for.
    """

    by_rank: Int64s
    copies: Copies


class Lookup:
    """The routing of a plan's batches: by counts of recorded stretches where every expert has one slot; with replicas
    that share evenly, or from a pool, by compiled passes over tokens; else token by token. Copies that are merged are
    always counted token by token, in a compiled pass.
    """

    def __init__(self, plan: StepPlan, levels: Collection[Level]) -> None:
        self._plan, self._levels = plan, frozenset(levels)
        source, place = plan.routing, plan.placement
        even = plan.replicas == EVEN or place.replicas.max(initial=1) == 1
        known = isinstance(source, Sampled | Recorded)
        self._slots = _Slots(place, plan.layout.expert_tensor_parallel) if even and known else None
        self._counts: Counts | None = None
        if isinstance(source, Recorded) and place.replicas.max(initial=1) == 1:
            self._counts = Counts(source.recording, source.num_experts)

    def of(self, batch: Batch, node: Int32s) -> LayerTraffic:
        """All layers of a batch on an island; node int32[R]: of each of its ranks, from 0 on."""
        if self._slots is None:
            return _looked_up(self._plan, batch, node)
        rows, pairs = self._counted(self._slots, batch)
        devices, nodes, tokens = pairs[:, :0], pairs[:, :0], pairs[:, 0, :0]  # where nobody asks
        if self._levels & MERGED:
            devices, nodes = self._slots.merged(*self._tokens(batch), batch, node)
        if "tokens" in self._levels:
            tokens = np.broadcast_to(np.bincount(batch.token_rank, minlength=batch.ranks), (len(rows), batch.ranks))
        return LayerTraffic(rows, Copies(pairs, devices, nodes, node, tokens))

    def _counted(self, slots: _Slots, batch: Batch) -> tuple[Int64s, Int64s]:
        source = self._plan.routing
        if self._counts is not None:
            return slots.counted(self._counts, batch)
        if isinstance(source, Sampled):
            return slots.pooled(source, batch)
        assert isinstance(source, Recorded)
        return slots.recorded(source.recording, batch)

    def _tokens(self, batch: Batch) -> tuple[npt.NDArray[np.uint16], Int64s]:
        """A table uint16[N, layers, k] and the row in it of each token."""
        source = self._plan.routing
        if isinstance(source, Recorded):
            row = source.recording.rows(batch.token_request, batch.token_position)
            return source.recording.table(row), row
        assert isinstance(source, Sampled)
        found = np.empty((batch.tokens, len(source.pool), source.pool.shape[2]), dtype=np.uint16)
        from_pool(source.pool, source.tickets(batch.token_request, batch.token_position), found)
        return found, np.arange(batch.tokens)


class _Slots:
    """What of a Placement the compiled passes read; _owned, _experts int64[layers, ranks, most slots]: where the slots
    of each rank, or what they hold, stand among all in a row; after the last one where a rank owns fewer. `ways` lanes
    share the experts of one of its ranks.
    """

    def __init__(self, place: Placement, ways: int) -> None:
        self._place, self._ways = place, ways
        self._table = slot_table(place.slot_expert, place.replicas, place.slot_rank)
        self._most = int(place.replicas.max(initial=1))
        self._pool: npt.NDArray[Any] | None = None  # of the one source that is asked
        self._owner = np.take_along_axis(place.slot_rank, place.expert_slots[:, :, 0], axis=1)
        layers, slots = place.slot_rank.shape
        row, table, experts = np.arange(layers)[:, None, None], place.rank_slots, place.num_experts
        self._owned = np.where(table >= 0, row * slots + self._table.place[row, table], layers * slots)
        held = place.slot_expert[row, table] + row * experts
        self._experts = np.where(table >= 0, held, layers * experts)

    def counted(self, counts: Counts, batch: Batch) -> tuple[Int64s, Int64s]:
        """Rows and pairs by prefix sums; every expert has one slot."""
        if counts not in batch.memo:
            rows = np.flatnonzero(batch.routed)
            recorded = counts.recording.requests(batch.request[rows])
            batch.memo[counts] = rows, recorded, batch.query[rows], batch.rank[rows]
        rows, recorded, query, rank = batch.memo[counts]
        load, pairs = counts.load_and_pairs(
            recorded, batch.context[rows], query, rank, batch.ranks, self._owner, self._place.num_ranks
        )
        return _taken(load, self._experts), self._spread(pairs)

    def pooled(self, source: Sampled, batch: Batch) -> tuple[Int64s, Int64s]:
        """Of tokens from a pool."""
        ticket = source.tickets(batch.token_request, batch.token_position)
        if self._most > MOST_PACKED:
            found = np.empty((batch.tokens, len(source.pool), source.pool.shape[2]), dtype=np.uint16)
            from_pool(source.pool, ticket, found)
            return self._token_by_token(found, np.arange(batch.tokens), batch)
        if self._pool is None:
            self._pool = coded(source.pool, self._table)
        rows, pairs = self._empty(batch.ranks)
        turn = packed_turns(batch.token_request, batch.token_position, self._most)
        begin = np.searchsorted(batch.token_rank, np.arange(batch.ranks + 1))
        count_pooled(self._pool, ticket, turn, begin, self._table.rank, rows, pairs)
        return _taken(rows, self._owned), self._spread(pairs)

    def recorded(self, recording: Recording, batch: Batch) -> tuple[Int64s, Int64s]:
        """Of recorded tokens, each with its own replicas."""
        row = recording.rows(batch.token_request, batch.token_position)
        return self._token_by_token(recording.table(row), row, batch)

    def _token_by_token(
        self, table: npt.NDArray[np.uint16], row: Int64s, batch: Batch
    ) -> tuple[Int64s, Int64s]:  # fmt: skip
        rows, pairs = self._empty(batch.ranks)
        count_recorded(table, row, batch.token_rank, self._turns(batch), self._table, rows, pairs)
        return _taken(rows, self._owned), self._spread(pairs)

    def merged(
        self, table: npt.NDArray[np.uint16], row: Int64s, batch: Batch, node: Int32s
    ) -> tuple[Int64s, Int64s]:  # fmt: skip
        """Copies of a batch's tokens, which stand in `table`, by lane and by node."""
        layers, ranks, turn = len(self._owner), batch.ranks, self._turns(batch)
        devices = np.zeros((layers, ranks, ranks), dtype=np.int64)
        nodes = np.zeros((layers, ranks, int(node.max()) + 1), dtype=np.int64)
        count_merged(table, row, batch.token_rank, turn, self._table, self._ways, node, devices, nodes)
        return devices, nodes

    def _spread(self, pairs: Int64s) -> Int64s:
        """int64[layers, R, ranks of the placement] -> [layers, R, R]: to the lane in the source's own place among those
        that share an expert.
        """
        layers, lanes, ranks = pairs.shape
        if self._ways == 1:
            return pairs
        found = np.zeros((layers, lanes, ranks, self._ways), dtype=np.int64)
        lane = np.arange(lanes)
        found[:, lane, :, lane % self._ways] = pairs.transpose(1, 0, 2)
        return found.reshape(layers, lanes, -1)

    def _turns(self, batch: Batch) -> npt.NDArray[np.uint8]:
        """Which replica each token takes."""
        return turns(batch.token_request, batch.token_position, self._most)

    def _empty(self, lanes: int) -> tuple[Int64s, Int64s]:
        layers, slots = self._place.slot_rank.shape
        return np.zeros((layers, slots), np.int64), np.zeros((layers, lanes, self._place.num_ranks), np.int64)


def _taken(rows: Int64s, where: Int64s) -> Int64s:
    """int64[layers, n] in a row, and a 0 after the last, at `where`."""
    found: Int64s = np.append(rows, 0).take(where)
    return found


def _looked_up(plan: StepPlan, batch: Batch, node: Int32s) -> LayerTraffic:
    found, ways = [], plan.layout.expert_tensor_parallel
    for layer in range(plan.placement.num_layers):
        rows = plan.routing.rows(layer, batch.token_request, batch.token_position, batch.token_rank)
        found.append(traffic(rows.experts, rows, plan.placement, layer, node, ways, plan.replicas))
    pairs, devices, nodes, tokens = (
        np.stack([getattr(one.copies, level) for one in found]) for level in ("pairs", "devices", "nodes", "tokens")
    )
    return LayerTraffic(
        _by_rank(plan.placement, np.stack([one.rows for one in found])), Copies(pairs, devices, nodes, node, tokens)
    )


def _by_rank(place: Placement, rows: Int64s) -> Int64s:
    """int64[layers, slots] -> int64[layers, ranks, most slots], 0 where a rank owns fewer."""
    table = place.rank_slots
    return np.where(table >= 0, rows[np.arange(len(rows))[:, None, None], table], 0)
