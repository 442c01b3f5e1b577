"""Traffic of all layers at once: rows of slots and copies between ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.routing import Replay, Transplant
from moesim.routing.counts import Counts, load_and_pairs
from moesim.step.batch import Batch
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
    counted one by one; else token by token.
    """

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan
        self._counts: Counts | None = None
        source, place = plan.routing, plan.placement
        one_by_one = place.replicas.max() == 1 and plan.dispatch.algorithm.direct != "devices"
        if isinstance(source, Replay | Transplant) and one_by_one:
            self._counts = Counts(source.recording, source.num_experts)
            self._owner = np.take_along_axis(place.slot_rank, place.expert_slots[:, :, 0], axis=1)

    def of(self, batch: Batch) -> LayerTraffic:
        """All layers of a batch."""
        return _looked_up(self._plan, batch) if self._counts is None else self._counted(self._counts, batch)

    def _counted(self, counts: Counts, batch: Batch) -> LayerTraffic:
        place, rows = self._plan.placement, np.flatnonzero(batch.routed)
        found = counts.stretches(
            batch.request[rows], batch.context[rows], batch.query[rows], batch.rank[rows], batch.ranks
        )
        load, pairs = load_and_pairs(found, self._owner, place.num_ranks)
        rows = np.where(place.filled, np.take_along_axis(load, np.maximum(place.slot_expert, 0), axis=1), 0)
        return LayerTraffic(_by_rank(place, rows), pairs, None)


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
