"""nodes_touched: distinct nodes that hold an expert of a token, mean over tokens: the copies that cross nodes where
rows are deduplicated per node (DeepEP's normal kernels); its low-latency kernels send a copy for every choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.objectives.objective import Floats
from moesim.placement.solution import NO_BOUND, Bound
from moesim.placement.windows import Tokens
from moesim.routing.shape import NO_EXPERT
from moesim.step.dispatch import EVEN, candidates

if TYPE_CHECKING:
    from moesim.placement.budget import Budget
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows

CHUNK = 16_384  # tokens looked at together
Ints = npt.NDArray[np.int64]


class NodesTouched:
    """Nodes of the slots that a token's choices go to."""

    name, unit = "nodes_touched", "nodes a token"

    def evaluate(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[layers]. Raises BadInput where windows are counts only."""
        assert windows.edges is not None or windows.tokens is None
        nodes = touches(problem, placement, windows).sum(axis=(0, 2))
        result: Floats = nodes / (1 if windows.edges is None else windows.edges[-1])
        return result

    def bound(self, problem: PlacementProblem, budget: Budget) -> Bound:
        """None is known."""
        return NO_BOUND


def touches(problem: PlacementProblem, placement: Placement, windows: Windows) -> Ints:
    """int64[W, layers, nodes]: tokens of each window that have an expert on the node. Raises BadInput for counts."""
    if windows.tokens is None or windows.edges is None:
        raise BadInput("nodes_touched needs tokens", where=windows.name, way_out="a trace, not counts")
    if problem.way != EVEN:
        return _touches_by_place(problem, placement, windows)
    shares = problem.dispatch.shares(problem, placement, windows)
    result = np.zeros((windows.num_windows, placement.num_layers, problem.nodes), dtype=np.int64)
    for window in range(windows.num_windows):
        first, last = windows.edges[window : window + 2]
        share = shares[min(window, len(shares) - 1)]
        for layer in range(placement.num_layers):
            node_of = _node_table(placement, layer, share[layer], problem.node_of_rank)
            for start in range(int(first), int(last), CHUNK):
                part = windows.tokens[layer, start : min(start + CHUNK, int(last))]
                result[window, layer] += _touched(part, start, *node_of, problem.nodes)
    return result


def _touches_by_place(problem: PlacementProblem, placement: Placement, windows: Windows) -> Ints:
    """`touches` where the replica that a token takes depends on its rank: tokens start on all ranks in turn."""
    assert windows.tokens is not None
    assert windows.edges is not None
    result = np.zeros((windows.num_windows, placement.num_layers, problem.nodes), dtype=np.int64)
    for layer in range(placement.num_layers):
        slots, number = candidates(placement, layer, problem.node_of_rank, problem.way)
        node_of = problem.node_of_rank[placement.slot_rank[layer][slots]]
        for window in range(windows.num_windows):
            first, last = windows.edges[window : window + 2]
            for start in range(int(first), int(last), CHUNK):
                part = windows.tokens[layer, start : min(start + CHUNK, int(last))]
                rank = (start + np.arange(len(part)))[:, None] % len(node_of)
                chosen = np.where(part == NO_EXPERT, 0, part).astype(np.int64)
                which = (_draws(start, len(part))[:, None] * number[rank, chosen]).astype(np.int64)
                result[window, layer] += _distinct(part, node_of[rank, chosen, which], problem.nodes)
    return result


def _node_table(placement: Placement, layer: int, share: Floats, node_of_rank: Ints) -> tuple[Floats, Ints]:
    """float64[experts, replicas] cumulated shares of an expert's slots, int64[experts, replicas] their nodes."""
    slots = placement.expert_slots[layer]
    upto = np.cumsum(np.where(slots >= 0, share[slots], 0.0), axis=1)
    return upto, node_of_rank[placement.slot_rank[layer][slots]]


def _touched(tokens: Tokens, start: int, upto: Floats, node_of: Ints, nodes: int) -> Ints:
    """tokens [T, k] of one layer -> int64[nodes] distinct (token, node) pairs; a replica is drawn by a hash of its
    row."""
    chosen = np.where(tokens == NO_EXPERT, 0, tokens).astype(np.int64)
    which = np.zeros(chosen.shape, dtype=np.int64)
    if upto.shape[1] > 1:
        draw = _draws(start, len(tokens))
        for replica in range(upto.shape[1] - 1):
            which += draw[:, None] >= upto[chosen, replica]
    return _distinct(tokens, node_of[chosen, which], nodes)


def _draws(start: int, count: int) -> Floats:
    """float64[count] in [0, 1): a token's own, whatever its choices."""
    ticket = streams.hash_ints(streams.key("placement", "replica"), start + np.arange(count))
    draws: Floats = (ticket >> np.uint64(11)).astype(np.float64) / 2.0**53
    return draws


def _distinct(tokens: Tokens, node_of_choice: Ints, nodes: int) -> Ints:
    """tokens, node_of_choice [T, k] -> int64[nodes]: tokens with a choice on each node."""
    node = np.where(tokens == NO_EXPERT, nodes, node_of_choice)
    there = np.zeros((len(tokens), nodes + 1), dtype=bool)
    there[np.arange(len(tokens))[:, None], node] = True
    count: Ints = there[:, :nodes].sum(axis=0)
    return count
