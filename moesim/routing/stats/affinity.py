"""How much a token's expert in one layer says about its expert in the next, and which experts meet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]


def transitions(trace: RoutingTrace, layer: int, *, choices: int | None = None) -> npt.NDArray[np.int64]:
    """int64[E, E]: tokens that chose row expert in `layer` and column expert in the next, over all pairs of choices.

    `choices` limits both to the heaviest ones: 1 is the top-1 affinity of ExFlow (arXiv 2401.08383).
    """
    here, there = trace.expert[:, layer, :choices], trace.expert[:, layer + 1, :choices]
    return _pairs(here, there, trace.header.num_experts)


def coactivation(trace: RoutingTrace, layer: int) -> npt.NDArray[np.int64]:
    """int64[E, E] symmetric: tokens that chose both; the diagonal counts tokens that chose the expert."""
    return _pairs(trace.expert[:, layer], trace.expert[:, layer], trace.header.num_experts)


def _pairs(here: npt.NDArray[np.uint16], there: npt.NDArray[np.uint16], experts: int) -> npt.NDArray[np.int64]:
    """[N, k], [N, k'] -> int64[E, E]: tokens with row expert among the first and column expert among the second."""
    side = experts + 1  # those that are none share the last place
    table = np.zeros(side * side, dtype=np.int64)
    for one in np.minimum(here.T, experts).astype(np.int64) * side:
        for other in np.minimum(there.T, experts):
            table += np.bincount(one + other, minlength=len(table))
    return table.reshape(side, side)[:experts, :experts]


def likeliest_partner(trace: RoutingTrace) -> Floats:
    """[L]: share of an expert's tokens that chose its most frequent partner too, mean over the experts that were used.

    By chance it is near (k - 1) / (E - 1).
    """
    return np.array([_partner_share(coactivation(trace, layer)) for layer in range(trace.header.moe_layers)])


def _partner_share(table: npt.NDArray[np.int64]) -> float:
    own = np.diagonal(table)
    used = own > 0
    apart = np.where(np.eye(len(table), dtype=bool), 0, table)
    return float((apart.max(axis=1)[used] / own[used]).mean()) if used.any() else 0.0


def mutual_information_bits(table: npt.NDArray[np.int64]) -> float:
    """[E, E] joint counts -> bits that row and column share, less the bias (R-1)(C-1)/(2 N ln 2) of Miller (1955)."""
    total = table.sum()
    joint = table / total
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    expected = np.outer(rows, columns)
    bits = float((joint * np.log2(np.where(joint > 0, joint / np.where(expected > 0, expected, 1), 1))).sum())
    bias = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1) / (2 * total * np.log(2))
    return bits - float(bias)


def affinity(trace: RoutingTrace) -> Floats:
    """[L - 1] in 0..1: top-1 mutual information of neighbouring layers over the entropy of the later one."""
    result = []
    for layer in range(trace.header.moe_layers - 1):
        table = transitions(trace, layer, choices=1)
        share = table.sum(axis=0) / max(table.sum(), 1)
        entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum()
        result.append(mutual_information_bits(table) / entropy if entropy > 0 else 0.0)
    return np.array(result)


def likeliest_successor(trace: RoutingTrace) -> Floats:
    """[L - 1]: share of tokens whose next top-1 expert is the likeliest successor of their present one."""
    tables = [transitions(trace, layer, choices=1) for layer in range(trace.header.moe_layers - 1)]
    return np.array([table.max(axis=1).sum() / max(table.sum(), 1) for table in tables])
