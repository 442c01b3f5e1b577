"""moetuner: the two programs of MoETuner (arXiv 2502.06643), one after the other.

Stage 1 deals the experts of each layer into clusters of even load; stage 2 assigns clusters to ranks so that moves
between layers cost least (ranks of unequal slots keep the clusters that fill them). What a program does not finish in
its share of the time is taken from the fast methods of `affinity_hungarian`, and said.
"""

from __future__ import annotations

import numpy as np

from moesim.placement.budget import Budget
from moesim.placement.chain import Chain, Ints
from moesim.placement.problem import PlacementProblem
from moesim.placement.search import milp
from moesim.placement.search.clusters import aligned, balanced
from moesim.placement.search.programs import even_program
from moesim.placement.solution import Answer
from moesim.placement.strategies.ilp import check_size, solve_chain, time_left


class MoETuner:
    """Without redundant slots as in the paper; replicas are items of their own."""

    name, summary = "moetuner", "two mixed-integer programs: even clusters, then their ranks (MoETuner)"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput where windows are counts only, DoesNotFit for programs that are too large."""
        check_size(problem.layers * problem.ranks**3 + problem.slots * problem.ranks)
        chain = Chain.of(problem)
        cluster, left = _clusters(problem, chain, budget)
        rank = aligned(chain, cluster)
        notes: tuple[str, ...] = (f"stage 1: {left} layers not proved optimal",) if left else ()
        if problem.ranks > 1 and problem.layers > 1 and len(set(problem.slots_of_rank)) == 1:
            rank, outcome = _assigned(problem, chain, cluster, rank, budget)
            notes += () if outcome.optimal else (f"stage 2 not proved optimal: {outcome.remark}",)
        return Answer(chain.placement(problem, rank), notes=notes)


def _clusters(problem: PlacementProblem, chain: Chain, budget: Budget) -> tuple[Ints, int]:
    """(int64[layers, S] cluster of each item, layers without a proof): half of the time."""
    cluster, left, half = balanced(chain.load, chain.room, chain.cap), 0, time_left(budget) / 2
    for layer in range(problem.layers):
        program, stands = even_program(chain, layer, problem.speed)
        outcome = milp.solve(program, half / problem.layers, stop=lambda: budget.expired)
        left += not outcome.optimal
        if outcome.values is not None:
            found = outcome.values[stands].argmax(axis=1)
            tallest = [
                (np.bincount(row, chain.load[layer], problem.ranks) / problem.speed).max()
                for row in (found, cluster[layer])
            ]
            cluster[layer] = found if tallest[0] < tallest[1] else cluster[layer]
    return cluster, left


def _assigned(
    problem: PlacementProblem, chain: Chain, cluster: Ints, first: Ints, budget: Budget
) -> tuple[Ints, milp.Solved]:  # fmt: skip
    """The clusters of each layer as the items of a smaller chain, one a rank; never costlier than `first`."""
    ranks, layers = problem.ranks, problem.layers
    member = (cluster[:, :, None] == np.arange(ranks)).astype(np.float32)  # [layers, S, clusters]
    small = Chain(
        np.tile(np.arange(ranks), (layers, 1)),
        np.stack([member[n].T @ chain.flow[n] @ member[n + 1] for n in range(layers - 1)]),
        np.stack([chain.load[n] @ member[n] for n in range(layers)]),
        np.ones(ranks, dtype=np.int64), np.full((layers, ranks), np.inf), chain.distance,
    )  # fmt: skip
    value = chain.cost(first)
    seat, outcome = solve_chain(problem, small, value, time_left(budget), budget)
    rank = first if seat is None else np.take_along_axis(seat, cluster, axis=1)
    legal = (chain.excess(rank), chain.cost(rank)) <= (chain.excess(first), value)
    return (rank if legal else first), outcome
