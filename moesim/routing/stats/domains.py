"""How differently domains of text use the experts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.routing.stats.load import counts_by, shares
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]


def jensen_shannon_bits(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """[..., E] counts twice -> [...] bits, 0 (equal) to 1 (disjoint)."""
    p, q = shares(first), shares(second)
    middle = (p + q) / 2

    def against(a: Floats) -> Floats:
        ratio = np.where(a > 0, a / np.where(middle > 0, middle, 1), 1)
        result: Floats = (a * np.log2(ratio)).sum(axis=-1)
        return result

    return (against(p) + against(q)) / 2


def domain_divergence(trace: RoutingTrace) -> Floats:
    """[D, D] Jensen-Shannon bits between the domains' expert shares, mean over layers; nan for an absent domain."""
    return _divergence(trace, trace.domain.astype(np.int64))


def shuffled_divergence(trace: RoutingTrace, seed: int = 0) -> Floats:
    """The same with the domains dealt anew to the requests: what chance alone would show."""
    index = trace.by_request
    owner = trace.domain[index.order[index.start]]
    dealt = streams.stream(seed, "stats", "domains").permutation(owner)
    which = np.searchsorted(index.request, trace.request)
    return _divergence(trace, dealt[which].astype(np.int64))


def owners(trace: RoutingTrace) -> tuple[npt.NDArray[np.int64], Floats]:
    """The expert of a layer that a domain owns, int64[D, L]: its share of that domain's choices is furthest above its
    share of all others'; and by how much, [D, L], 0 where domains are alike. -1 and nan for an absent domain.

    Source: expert attribution as in SEUF (arXiv 2411.18797), of choices in place of gate scores.
    """
    counts = counts_by(trace, trace.domain.astype(np.int64), len(trace.header.domains))
    above = shares(counts) - shares(counts.sum(axis=0) - counts)
    owner, lead = above.argmax(axis=2), above.max(axis=2)
    absent = counts.sum(axis=(1, 2)) == 0
    owner[absent], lead[absent] = -1, np.nan
    return owner, lead


def _divergence(trace: RoutingTrace, label: npt.NDArray[np.int64]) -> Floats:
    domains = len(trace.header.domains)
    counts = counts_by(trace, label, domains)
    table: Floats = jensen_shannon_bits(counts[:, None], counts[None, :]).mean(axis=-1)
    absent = counts.sum(axis=(1, 2)) == 0
    table[absent], table[:, absent] = np.nan, np.nan
    return table
