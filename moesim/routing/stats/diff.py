"""How two traces of one model differ: drift of the load, and tokens that changed their experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.stats.domains import jensen_shannon_bits
from moesim.routing.stats.load import shares
from moesim.routing.stats.locality import overlap
from moesim.routing.stats.summary import Summary
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
HOTTEST = 8


@dataclass(frozen=True)
class TraceDiff:
    """Per layer [L]: Jensen-Shannon bits, total variation and Pearson correlation of the shares, overlap of the eight
    hottest experts. `common` tokens are in both traces; `fluctuation` [L] is the share of their choices that changed.
    """

    divergence_bits: Floats
    total_variation: Floats
    correlation: Floats
    hot_overlap: Floats
    common: int
    fluctuation: Floats

    def to_json(self) -> dict[str, Any]:
        """metrics {name: mean over layers} and breakdown {name: [L]}."""
        return Summary(self._layers, self._scalars).to_json()

    @property
    def _layers(self) -> dict[str, Floats]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def _scalars(self) -> dict[str, float]:
        means = {name: float(np.mean(values)) for name, values in self._layers.items()}
        return means | {"common_tokens": float(self.common)}


def diff(first: RoutingTrace, second: RoutingTrace) -> TraceDiff:
    """Compare two traces of one routing shape. Raises BadInput for different shapes.

    A token is in both if request, position and, where both say it, token id agree: two checkpoints on the same text.
    """
    a, b = first.header, second.header
    if (a.moe_layers, a.num_experts, a.top_k) != (b.moe_layers, b.num_experts, b.top_k):
        shapes = [f"{h.moe_layers} layers with top-{h.top_k} of {h.num_experts}" for h in (a, b)]
        raise BadInput(
            " against ".join(shapes),
            where=f"{first.where}, {second.where}",
            way_out="moesim trace transplant brings one to the other's shape",
        )
    p, q = shares(first.counts()), shares(second.counts())
    rows = common_rows(first, second)
    moved = 1 - overlap(first.expert[rows[0]], second.expert[rows[1]]).mean(axis=0) if len(rows[0]) else np.nan
    return TraceDiff(
        divergence_bits=jensen_shannon_bits(p, q),
        total_variation=np.abs(p - q).sum(axis=1) / 2,
        correlation=_correlation(p, q),
        hot_overlap=_hot_overlap(p, q),
        common=len(rows[0]),
        fluctuation=np.broadcast_to(moved, (a.moe_layers,)),
    )


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
