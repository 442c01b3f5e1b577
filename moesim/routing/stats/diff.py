"""How two recordings of one model differ: drift of the load, and tokens that changed their experts.

Counts tell the first; the second needs the tokens of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.loads import LoadRecord
from moesim.routing.stats.domains import jensen_shannon_bits
from moesim.routing.stats.load import shares
from moesim.routing.stats.locality import overlap
from moesim.routing.stats.shift import moved_layers, shift_ratio
from moesim.routing.stats.summary import Summary
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
HOTTEST = 8


@dataclass(frozen=True)
class TraceDiff:
    """Per layer [L]: Jensen-Shannon bits, total variation and Pearson correlation of the shares, overlap of the eight
    hottest experts. `common` tokens are in both traces; `fluctuation` [L] is the share of their choices that changed,
    `moved` {name: value} says how many tokens and layers that are, and RSPO's ratio where both traces have logits; None
    and empty where one of the two is counts. notes: what is left out, and why.
    """

    divergence_bits: Floats
    total_variation: Floats
    correlation: Floats
    hot_overlap: Floats
    common: int | None = None
    fluctuation: Floats | None = None
    moved: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """metrics {name: mean over layers} and breakdown {name: [L]}."""
        return Summary(self._layers, self._scalars).to_json()

    @property
    def _layers(self) -> dict[str, Floats]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def _scalars(self) -> dict[str, float]:
        means = {name: float(np.mean(values)) for name, values in self._layers.items()}
        return means if self.common is None else {**means, **self.moved, "common_tokens": float(self.common)}


def diff(first: RoutingTrace | LoadRecord, second: RoutingTrace | LoadRecord) -> TraceDiff:
    """Compare two recordings of one routing shape. Raises BadInput for different shapes, or counts of nothing.

    A token is in both if request, position and, where both say it, token id agree: two checkpoints on the same text.
    """
    _check_alike(first, second)
    load = _of_loads(_load(first), _load(second))
    if isinstance(first, LoadRecord) or isinstance(second, LoadRecord):
        note = "counts tell no tokens: which of them changed their experts is not known"
        return TraceDiff(**load, notes=(note,))
    rows = common_rows(first, second)
    one, other = first.take(rows[0]), second.take(rows[1])
    if not one.tokens:
        return TraceDiff(**load, common=0, fluctuation=np.full(first.header.moe_layers, np.nan))
    fluctuation = 1 - overlap(one.expert, other.expert).mean(axis=0)
    return TraceDiff(**load, common=one.tokens, fluctuation=fluctuation, moved=_moved(one, other))


def _moved(first: RoutingTrace, second: RoutingTrace) -> dict[str, float]:
    """Of the same tokens in the same order."""
    layers = moved_layers(first.expert, second.expert)
    found = {"moved_tokens": float(np.mean(layers > 0)), "moved_layers_of_a_token": float(np.mean(layers))}
    if first.logits is not None and second.logits is not None:
        found["router_shift_ratio"] = float(np.mean(shift_ratio(first.expert, first.logits, second.logits)))
    return found


def _check_alike(first: RoutingTrace | LoadRecord, second: RoutingTrace | LoadRecord) -> None:
    a, b = first.header, second.header
    if (a.moe_layers, a.num_experts, a.top_k) != (b.moe_layers, b.num_experts, b.top_k):
        shapes = [f"{h.moe_layers} layers with top-{h.top_k} of {h.num_experts}" for h in (a, b)]
        raise BadInput(
            " against ".join(shapes),
            where=", ".join(
                one.where if isinstance(one, RoutingTrace) else one.header.origin for one in (first, second)
            ),
            way_out="moesim trace transplant brings one to the other's shape",
        )


def _load(one: RoutingTrace | LoadRecord) -> npt.NDArray[np.int64]:
    """int64[layers, experts]: all choices."""
    if isinstance(one, RoutingTrace):
        return one.counts()
    total: npt.NDArray[np.int64] = one.counts.sum(axis=0)
    if not total.any():
        raise BadInput("all counts are 0", where=one.header.origin, way_out="record while the engine serves requests")
    return total


def _of_loads(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> dict[str, Any]:
    """int64[layers, experts] of each -> what their shares tell."""
    p, q = shares(first), shares(second)
    return {
        "divergence_bits": jensen_shannon_bits(p, q),
        "total_variation": np.abs(p - q).sum(axis=1) / 2,
        "correlation": _correlation(p, q),
        "hot_overlap": _hot_overlap(p, q),
    }


def common_rows(first: RoutingTrace, second: RoutingTrace) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the two traces that are the same token."""
    keys = [trace.request.astype(np.int64) << 32 | trace.position for trace in (first, second)]
    _, one, other = np.intersect1d(keys[0], keys[1], return_indices=True)
    if first.token_id is not None and second.token_id is not None:
        same = first.token_id[one] == second.token_id[other]
        one, other = one[same], other[same]
    return one, other


def _correlation(p: Floats, q: Floats) -> Floats:
    x, y = p - p.mean(axis=1, keepdims=True), q - q.mean(axis=1, keepdims=True)
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    result: Floats = np.where(size > 0, (x * y).sum(axis=1) / np.where(size > 0, size, 1), 1.0)
    return result


def _hot_overlap(p: Floats, q: Floats) -> Floats:
    number = min(HOTTEST, p.shape[1])
    hot = [np.argsort(-share, axis=1, kind="stable")[:, :number] for share in (p, q)]
    result: Floats = (hot[0][:, :, None] == hot[1][:, None, :]).any(axis=2).mean(axis=1)
    return result
