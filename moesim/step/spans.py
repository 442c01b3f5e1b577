"""Traffic of all layers at once: rows of slots and copies between ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.routing import Replay, Sampled, Transplant
from moesim.routing.counts import Counts, load_and_pairs
from moesim.routing.slots import count_pooled, count_recorded, slot_table, turns
from moesim.routing.sources.replay import Recording
from moesim.step.batch import Batch
from moesim.step.dispatch import EVEN
from moesim.step.plan import StepPlan
from moesim.step.traffic import traffic

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayerTraffic:
    """by_rank int64[layers, R, slots of a rank] rows; pairs, devices int64[layers, R, R] copies: see network.Copies."""

    by_rank: Int64s
    pairs: Int64s
    devices: Int64s | None

    def copies(self, level: str) -> Int64s:
        """The copies that an algorithm sends."""
        found = self.pairs if level == "pairs" else self.devices
        assert found is not None
        return found


class Lookup:
    """The routing of a plan's batches: by counts of recorded stretches where every expert has one slot and copies are
    counted one by one; with replicas that share evenly, or from a pool, by compiled passes over tokens; else token by
    token.
    """

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan
        source, place = plan.routing, plan.placement
        even = plan.replicas == EVEN or place.replicas.max(initial=1) == 1
        self._slots = (
            _Slots(place) if even and place.num_layers and plan.dispatch.algorithm.direct != "devices" else None
        )
        self._counts: Counts | None = None
        if isinstance(source, Replay | Transplant) and place.replicas.max(initial=1) == 1:
            self._counts = Counts(source.recording, source.num_experts)

    def of(self, batch: Batch) -> LayerTraffic:
        """All layers of a batch."""
        source, slots = self._plan.routing, self._slots
        if slots is None:
            return _looked_up(self._plan, batch)
        if self._counts is not None:
            return slots.counted(self._counts, batch)
        if isinstance(source, Sampled):
            return slots.pooled(source, batch)
        if isinstance(source, Replay | Transplant):
            return slots.recorded(source.recording, batch)
        return _looked_up(self._plan, batch)


class _Slots:
    """What of a Placement the compiled passes read; _owned, _experts int64[layers, ranks, most slots]: where the slots
    of each rank, or what they hold, stand among all in a row; after the last one where a rank owns fewer.
    """

    def __init__(self, place: Placement) -> None:
        self._place = place
        self._table = slot_table(place.expert_slots, place.replicas, place.slot_rank)
        self._owner = np.take_along_axis(place.slot_rank, place.expert_slots[:, :, 0], axis=1)
        layers, slots = place.slot_rank.shape
        row, table, experts = np.arange(layers)[:, None, None], place.rank_slots, place.num_experts
        self._owned = np.where(table >= 0, row * slots + table, layers * slots)
        held = place.slot_expert[row, table] + row * experts
        self._experts = np.where(table >= 0, held, layers * experts)

    def counted(self, counts: Counts, batch: Batch) -> LayerTraffic:
        """By prefix sums; every expert has one slot."""
        rows = np.flatnonzero(batch.routed)
        found = counts.stretches(
            batch.request[rows], batch.context[rows], batch.query[rows], batch.rank[rows], batch.ranks
        )
        load, pairs = load_and_pairs(found, self._owner, self._place.num_ranks)
        return LayerTraffic(_taken(load, self._experts), pairs, None)

    def pooled(self, source: Sampled, batch: Batch) -> LayerTraffic:
        """Of tokens from a pool."""
        ticket = source.tickets(batch.token_request, batch.token_position)
        rows, pairs = self._empty()
        count_pooled(source.pool, ticket, batch.token_rank, self._turns(batch), self._table, rows, pairs)
        return LayerTraffic(_taken(rows, self._owned), pairs, None)

    def recorded(self, recording: Recording, batch: Batch) -> LayerTraffic:
        """Of recorded tokens, each with its own replicas."""
        row = recording.rows(batch.token_request, batch.token_position)
        rows, pairs = self._empty()
        count_recorded(recording.table(row), row, batch.token_rank, self._turns(batch), self._table, rows, pairs)
        return LayerTraffic(_taken(rows, self._owned), pairs, None)

    def _turns(self, batch: Batch) -> npt.NDArray[np.uint8]:
        """Which replica each token takes."""
        return turns(batch.token_request, batch.token_position, self._place.expert_slots.shape[2])

    def _empty(self) -> tuple[Int64s, Int64s]:
        layers, slots = self._place.slot_rank.shape
        ranks = self._place.num_ranks
        return np.zeros((layers, slots), np.int64), np.zeros((layers, ranks, ranks), np.int64)


def _taken(rows: Int64s, where: Int64s) -> Int64s:
    """int64[layers, n] in a row, and a 0 after the last, at `where`."""
    found: Int64s = np.append(rows, 0).take(where)
    return found


def _looked_up(plan: StepPlan, batch: Batch) -> LayerTraffic:
    node = plan.fabric.cluster.node_of[plan.layout.islands()[0]]
    found = []
    for layer in range(plan.placement.num_layers):
        rows = plan.routing.rows(layer, batch.token_request, batch.token_position, batch.token_rank)
        found.append(traffic(rows.experts, rows, plan.placement, layer, node, way=plan.replicas))
    pairs, devices = (np.stack([getattr(one.copies, level) for one in found]) for level in ("pairs", "devices"))
    return LayerTraffic(_by_rank(plan.placement, np.stack([one.rows for one in found])), pairs, devices)


def _by_rank(place: Placement, rows: Int64s) -> Int64s:
    """int64[layers, slots] -> int64[layers, ranks, most slots], 0 where a rank owns fewer."""
    table = place.rank_slots
    return np.where(table >= 0, rows[np.arange(len(rows))[:, None, None], table], 0)
