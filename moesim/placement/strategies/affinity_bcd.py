"""affinity_bcd: block coordinate descent on the moves between layers, within slots and load cap.

While the other layers stand still, the cost of a layer is linear in where its items stand (`exchange.settle`). Layers
of one parity do not touch each other, so they descend together. Noise on the costs, less in each sweep, lets clusters
that grew around different experts in different layers find each other; the last sweeps are without.
"""

from __future__ import annotations

import numpy as np

from moesim.placement.budget import Budget
from moesim.placement.chain import Chain, Floats, Ints
from moesim.placement.problem import PlacementProblem
from moesim.placement.search.clusters import aligned, balanced
from moesim.placement.search.exchange import settle
from moesim.placement.solution import Answer

NOISE, NOISY, QUIET = 2.0, 40, 6  # noise of the first sweep, sweeps with and without


class AffinityBcd:
    """Starts from `affinity_hungarian`, never ends worse."""

    name, summary = "affinity_bcd", "layers take turns to follow their neighbours' experts, within the load cap"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput where windows are counts only."""
        chain = Chain.of(problem)
        return Answer(chain.placement(problem, descend(chain, problem, budget)))


def descend(chain: Chain, problem: PlacementProblem, budget: Budget) -> Ints:
    """int64[layers, S] rank of each item: the best that was seen."""
    best = start(chain)
    value = (chain.excess(best), chain.cost(best))
    random, rank = budget.stream(), best.copy()
    for noise in (*np.linspace(NOISE, 0, NOISY, endpoint=False), *[0.0] * QUIET):
        if budget.expired:
            break
        for parity in (0, 1):
            sweep(chain, rank, np.arange(parity, len(rank), 2), noise, random)
        now = (chain.excess(rank), chain.cost(rank))
        if now < value:
            best, value = rank.copy(), now
            budget.offer(chain.placement(problem, best), value[1])
    return best


def start(chain: Chain) -> Ints:
    """Balanced clusters, aligned; where LPT exceeds a cap, exchanges by load alone bring it back."""
    rank = balanced(chain.load, chain.room, chain.cap)
    if chain.excess(rank):
        settle(np.zeros((*rank.shape, len(chain.room))), chain.load, rank, chain.cap, chain.room)
    return aligned(chain, rank)


def sweep(chain: Chain, rank: Ints, layers: Ints, noise: float, random: np.random.Generator) -> None:
    """The layers `layers` of `rank` settle anew, in place; noise is in units of sqrt(moves of an item)."""
    if not len(layers):
        return
    cost = chain.pull(rank, layers)
    if noise:
        cost += noise * _deviation(chain, layers)[..., None] * random.standard_normal(cost.shape, dtype=np.float32)
    part = rank[layers]
    settle(cost, chain.load[layers], part, chain.cap[layers], chain.room)
    rank[layers] = part


def _deviation(chain: Chain, layers: Ints) -> Floats:
    """float64[B, S]: what moves of an item would scatter by if they were drawn at random, times the choices of a token:
    the choices of one token come together."""
    moves = np.zeros((len(chain.load), chain.load.shape[1]))
    moves[:-1] += chain.flow.sum(axis=2)
    moves[1:] += chain.flow.sum(axis=1)
    choices = np.sqrt(chain.total / max(chain.load[:-1].sum(), 1.0))
    result: Floats = np.sqrt(moves * choices)[layers]
    return result
