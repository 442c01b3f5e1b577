"""exact_chain_dp: the optimum of the moves between layers, by dynamic programming over the ways to deal a layer.

The best chain that ends in a given deal of layer l needs only the best chains that end in each deal of layer l - 1. A
chain keeps its cost when equal ranks swap names in all layers, so the deals of the layer before are taken up to names
(105 of 2,520 for 8 experts on 4 GPUs). Proved optimal without redundant slots; with them, for the replicas it chose.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import DoesNotFit
from moesim.placement.budget import Budget
from moesim.placement.chain import Chain
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.partitions import deals, how_many, numbered, renamed
from moesim.placement.solution import NO_BOUND, Answer, Bound

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MOST_DEALS, MOST_PAIRS, CHUNK = 100_000, 200_000_000, 4_000_000  # of one layer; of two layers; looked at together


class ExactChainDp:
    """For small layers: up to 8 experts on any ranks, 16 on two."""

    name, summary = "exact_chain_dp", "the proved optimum of transitions for few experts (8 on 8 GPUs, 16 on 2)"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises DoesNotFit where there are too many ways, or none within the load cap; BadInput without tokens."""
        _check_size(problem, how_many(problem.slots_of_rank))
        chain, table = Chain.of(problem), _Table.of(problem)
        rank = _best_chain(problem, chain, table)
        exact = problem.slots == problem.experts
        bound = Bound(chain.cost(rank), "dynamic programming") if exact else NO_BOUND
        note = "optimal for its choice of replicas, which follows the load" if not exact else ""
        return Answer(chain.placement(problem, rank), bound, (note,) if note else ())


class _Table(NamedTuple):
    """deal int64[N, S]; family int64[N]: which deals are one up to names; head int64[F]: a deal of each family whose
    ranks have the family's own names; name int64[N, ranks]: a deal's ranks -> names in its family."""

    deal: Ints
    family: Ints
    head: Ints
    name: Ints

    @staticmethod
    def of(problem: PlacementProblem) -> _Table:
        deal = deals(problem.slots_of_rank)
        if not interchangeable(problem):
            alone = np.arange(len(deal))
            return _Table(deal, alone, alone, np.tile(np.arange(problem.ranks), (len(deal), 1)))
        base, name = renamed(deal, problem.node_of_rank)
        number = numbered(deal, problem.ranks)
        order = np.argsort(number)
        own = order[np.searchsorted(number[order], numbered(base, problem.ranks))]  # the deal that bears the names
        head, family = np.unique(own, return_inverse=True)
        return _Table(deal, family, head, name)


def interchangeable(problem: PlacementProblem) -> bool:
    """Whether ranks of a node may swap names, and nodes: equal slots, speeds and sizes, nodes in order, no rails."""
    same = len(set(problem.slots_of_rank)) == 1 and len(set(problem.speed)) == 1
    sizes = np.bincount(problem.node_of_rank)
    in_order = (np.diff(problem.node_of_rank) >= 0).all() and len(set(sizes)) == 1
    return bool(same and in_order and problem.slots_of_rank[0] and problem.objective.name != "rail_transitions")


def _check_size(problem: PlacementProblem, ways: int) -> None:
    if ways > MOST_DEALS:
        raise DoesNotFit(
            f"exact_chain_dp: {ways:.3g} ways to deal {problem.slots} slots to {problem.ranks} ranks, at most "
            f"{MOST_DEALS:,} can be compared",
            way_out="strategy affinity_bcd or ilp, or fewer experts",
        )


def _best_chain(problem: PlacementProblem, chain: Chain, table: _Table) -> Ints:
    """int64[layers, S]: the rank of each item in the cheapest chain."""
    if len(table.head) * len(table.deal) > MOST_PAIRS:
        pairs = f"{len(table.head):,} x {len(table.deal):,}"
        raise DoesNotFit(f"exact_chain_dp: {pairs} pairs of deals a layer", way_out="strategy affinity_bcd or ilp")
    allowed = [_allowed(problem, chain, table, layer) for layer in range(problem.layers)]
    value = np.where(allowed[0], 0.0, np.inf)[table.head]
    steps: list[tuple[Ints, Ints]] = []
    for layer in range(1, len(chain.load)):
        ahead, before = _extend(chain, table, value, layer)
        ahead[~allowed[layer]] = np.inf
        value, choice = _best_of_family(table, ahead)
        steps.append((choice, before))
    return _traced(table, steps, int(value.argmin()))


def _allowed(problem: PlacementProblem, chain: Chain, table: _Table, layer: int) -> npt.NDArray[np.bool_]:
    """bool[N]: deals of a layer that keep the load caps. Raises DoesNotFit where none does."""
    held = np.zeros((len(table.deal), len(chain.room)))
    for item, load in enumerate(chain.load[layer]):
        held[np.arange(len(held)), table.deal[:, item]] += load
    fits: npt.NDArray[np.bool_] = (held <= chain.cap[layer] * (1 + 1e-12)).all(axis=1)
    if not fits.any() and problem.load_cap is not None:
        reached = float((held / chain.cap[layer]).max(axis=1).min() * problem.load_cap)
        raise DoesNotFit(
            f"no deal of the experts of layer {layer} keeps load cap {problem.load_cap:g}",
            way_out=f"load cap {np.ceil(reached * 1000) / 1000:g}, or redundant slots",
        )
    return fits


def _extend(chain: Chain, table: _Table, value: Floats, layer: int) -> tuple[Floats, Ints]:
    """value float64[F] of the layer before -> (float64[N] least cost of each deal, int64[N] family it came from)."""
    ranks, flow = len(chain.room), chain.flow[layer - 1].astype(np.float64)
    stands = (table.deal[:, :, None] == np.arange(ranks)).reshape(len(table.deal), -1).astype(np.float64)
    pulls = flow.T @ chain.distance.astype(np.float64)[table.deal[table.head]]  # [F, S, ranks]
    pulls = pulls.reshape(len(table.head), -1)
    best, source = np.full(len(stands), np.inf), np.zeros(len(stands), dtype=np.int64)
    step = max(CHUNK // len(stands), 1)
    for start in range(0, len(pulls), step):
        total = pulls[start : start + step] @ stands.T + value[start : start + step, None]
        which = total.argmin(axis=0)
        least = total[which, np.arange(len(stands))]
        source = np.where(least < best, start + which, source)
        best = np.minimum(best, least)
    return best, source


def _best_of_family(table: _Table, value: Floats) -> tuple[Floats, Ints]:
    """float64[N] -> (float64[F], int64[F]): the best deal of each family."""
    order = np.lexsort((value, table.family))
    first = order[np.searchsorted(table.family[order], np.arange(len(table.head)))]
    return value[first], first


def _traced(table: _Table, steps: list[tuple[Ints, Ints]], family: int) -> Ints:
    """From the last layer back: each step's deal bears the names of the deal before; renaming carries them through."""
    names = np.arange(table.name.shape[1])  # the family's own names -> ranks
    rows = []
    for choice, before in reversed(steps):
        deal = choice[family]
        rows.append(names[table.deal[table.head[family]]])
        names = names[table.name[deal]]
        family = int(before[deal])
    rows.append(names[table.deal[table.head[family]]])
    return np.stack(rows[::-1])
