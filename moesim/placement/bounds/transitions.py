"""Lower bounds on moves that leave a group of ranks (a GPU, a node), whatever the placement within slots and load cap.

Moves that stay are bounded from above, layer by layer, twice, and the smaller bound counts.

Cardinality: an expert shares its group with at most `room` experts of the next layer, whose load adds up to at most the
cap: it keeps no more than a fractional knapsack over its own moves; any price on load gives an upper bound on that.

Spectral: stay = trace(X' W Y) with X, Y the shares of experts on groups. With loads D, E of two layers, the Gram matrix
of sqrt(D) X has row sums of at most the groups' load caps, so its singular values are at most sqrt(cap), and by von
Neumann's inequality stay <= sqrt(cap cap') x the sum of the largest singular values, one per group, of D^-1/2 W E^-1/2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.placement.solution import NO_BOUND, Bound

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PRICES = np.r_[0.0, np.geomspace(1e-3, 1, 8)]  # of load, in units of an expert's moves per load


def bound(problem: PlacementProblem) -> Bound:
    """In hops a move, with the kind that carried the GPU level; none where a replica is chosen by where a token is, or
    by the batch.
    """
    flow = problem.train.flow
    fixed = problem.slots == problem.experts or problem.dispatch.name in ("even", "weighted")
    if not flow.sum() or not fixed:
        return NO_BOUND
    kinds: list[str] = []
    value = 0.0
    for group in (np.arange(problem.ranks), problem.node_of_rank):
        stays, kind = most_that_stay(problem, flow, group)
        value += 1 - stays / flow.sum()
        kinds.append(kind)
    return Bound(float(value), kinds[0]) if value > 0 else NO_BOUND


def most_that_stay(problem: PlacementProblem, flow: Floats, group: Ints) -> tuple[float, str]:
    """flow float64[layers - 1, E, E], group int[ranks] of each rank -> moves within groups at most, by which bound."""
    load = problem.load.astype(np.float64)
    room, cap = group_limits(problem, load, group)
    if len(room) == 1:
        return float(flow.sum()), "none"
    spectral, cardinality = 0.0, 0.0
    total = 0.0
    for layer, moves in enumerate(flow):
        ahead = keeps(moves, load[layer + 1], int(room.max()), cap[layer + 1])
        back = keeps(moves.T, load[layer], int(room.max()), cap[layer])
        few, wide = min(ahead, back), spectral_stay(moves, load[layer : layer + 2], cap[layer : layer + 2], len(room))
        cardinality, spectral = cardinality + few, spectral + wide
        total += min(few, wide, float(moves.sum()))
    return total, "spectral" if spectral < cardinality else "cardinality"


def group_limits(problem: PlacementProblem, load: Floats, group: Ints) -> tuple[Ints, Floats]:
    """load float64[layers, E], group int[ranks] -> slots of each group, most load float64[layers] of any group."""
    room = np.bincount(group, problem.slots_of_rank).astype(np.int64)
    heaviest = np.sort(load, axis=1)[:, ::-1][:, : int(room.max())].sum(axis=1)
    if problem.load_cap is None:
        return room, heaviest
    share = np.bincount(group, problem.speed).max() / problem.speed.sum()
    return room, np.minimum(heaviest, problem.load_cap * share * load.sum(axis=1))


def keeps(moves: Floats, load: Floats, room: int, cap: float) -> float:
    """moves float64[E, E'], load float64[E'] -> moves that stay with `room` companions and `cap` load at most."""
    if room >= len(load):
        return float(moves.sum())
    steepest = (moves / np.maximum(load, 1e-300)).max(axis=1, where=load > 0, initial=0.0)
    best = np.full(len(moves), np.inf)
    for price in PRICES:
        worth = np.maximum(moves - price * steepest[:, None] * load, 0.0)
        kept = np.partition(worth, -room, axis=1)[:, -room:].sum(axis=1)
        best = np.minimum(best, kept + price * steepest * cap)
    return float(np.minimum(best, moves.sum(axis=1)).sum())


def spectral_stay(moves: Floats, load: Floats, cap: Floats, groups: int) -> float:
    """moves float64[E, E'], load float64[2, E] of the two layers, cap float64[2] -> moves that stay at most."""
    root = np.sqrt(np.where(load > 0, load, np.inf))
    values = np.linalg.svd(moves / root[0][:, None] / root[1], compute_uv=False)
    return float(np.sqrt(cap[0] * cap[1]) * values[:groups].sum())
