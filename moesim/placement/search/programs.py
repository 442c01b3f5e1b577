"""Placement as mixed-integer programs. Stay variables are linked strongly: one for each pair of experts and group of
ranks, not above either expert's place there, and together not above the group's slots or load times that place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.placement.chain import Chain
from moesim.placement.levels import rail_of_rank
from moesim.placement.search.milp import Program

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def levels(problem: PlacementProblem) -> list[tuple[Ints, float]]:
    """(int64[ranks] group of each rank, hops that a move saves by staying in the group); the hops add up to
    `levels.hops`: GPU and node, or with rails node (twice) and rail."""
    rank, node = np.arange(problem.ranks), problem.node_of_rank
    if problem.objective.name == "rail_transitions":
        return [(node, 2.0), (rail_of_rank(node), 1.0)]
    return [(rank, 1.0), (node, 1.0)] if problem.nodes > 1 else [(rank, 1.0)]


def chain_program(problem: PlacementProblem, chain: Chain, same_names: bool) -> tuple[Program, Ints]:
    """Moves between layers (ExFlow's program, tokens with the same two experts taken together): (the program, whose
    value + hops of all moves is the hops that are left; int64[layers, S, ranks] columns of where items stand).

    same_names: ranks may swap names, so the first item keeps to rank 0.
    """
    program, (layers, items), ranks = Program(), chain.load.shape, len(chain.room)
    stands = program.columns(layers, items, ranks)
    for layer in range(layers):
        _deal(program, stands[layer], chain.load[layer], chain.room, chain.cap[layer])
    if same_names:
        program.row(stands[0, 0, 0], 1.0, least=1.0)
    for group, hops in levels(problem):
        for layer in range(layers - 1):
            for name in range(int(group.max()) + 1):
                _link(program, chain, stands, layer, group == name, hops)
    return program, stands


def _deal(program: Program, stands: Ints, load: Floats, room: Ints, cap: Floats) -> None:
    """stands int64[S, ranks]: each item once, each rank full and within its load cap."""
    for item in stands:
        program.row(item, 1.0, least=1.0, most=1.0)
    for rank, column in enumerate(stands.T):
        program.row(column, 1.0, least=room[rank], most=room[rank])
        if np.isfinite(cap[rank]):
            program.row(column, load, most=cap[rank])


def _link(program: Program, chain: Chain, stands: Ints, layer: int, here: npt.NDArray[np.bool_], hops: float) -> None:
    """Stay variables of one pair of layers and one group of ranks `here`."""
    flow, room = chain.flow[layer].astype(np.float64), int(chain.room[here].sum())
    stay = program.columns(*flow.shape, whole=False)
    for pair, column in np.ndenumerate(stay):
        program.cost[column] = -hops * flow[pair]
    for side, table in ((0, stay), (1, stay.T)):
        place, other = stands[layer + side][:, here], layer + 1 - side
        cap = float(chain.cap[other, here].sum())
        for item, row in enumerate(table):
            for column in row:
                program.row([column, *place[item]], [1.0, *[-1.0] * here.sum()], most=0.0)
            program.row([*row, *place[item]], [*[1.0] * len(row), *[-float(room)] * here.sum()], most=0.0)
            if np.isfinite(cap):
                program.row([*row, *place[item]], [*chain.load[other], *[-cap] * here.sum()], most=0.0)


def layer_program(chain: Chain, layer: int, cost: npt.NDArray[np.floating]) -> tuple[Program, Ints]:
    """One layer with its neighbours fixed: cost float[S, ranks] -> (program, int64[S, ranks] columns)."""
    program = Program()
    stands = program.columns(*cost.shape)
    _deal(program, stands, chain.load[layer], chain.room, chain.cap[layer])
    for pair, column in np.ndenumerate(stands):
        program.cost[column] = float(cost[pair])
    return program, stands


def balance_program(problem: PlacementProblem, layer: int, least: float) -> tuple[Program, Ints]:
    """The expected slowest rank of one layer under even dispatch, with the choice of replicas: (the program, whose
    value is the mean over windows of max/mean; int64[experts, replicas, ranks] columns: an expert that has 1, 2, ...
    replicas on each rank).

    An expert stands at most once on a rank. least: a bound on each window's peak, which the relaxation would not find.
    """
    counts = problem.train.counts[:, layer].astype(np.float64)
    experts, ranks, most = problem.experts, problem.ranks, problem.most_replicas
    program, share = Program(), 1.0 / np.arange(1, most + 1)
    peak = program.columns(len(counts), upper=np.inf, whole=False)
    number, stands = program.columns(experts, most), program.columns(experts, most, ranks)
    for expert in range(experts):
        program.row(number[expert], 1.0, least=1.0, most=1.0)
        for replicas in range(most):
            columns = [*stands[expert, replicas], number[expert, replicas]]
            program.row(columns, [*[1.0] * ranks, -(replicas + 1.0)], least=0.0, most=0.0)
    total, fair = problem.load[layer], problem.speed.sum()
    for rank in range(ranks):
        here, speed = stands[:, :, rank], problem.speed[rank]
        program.row(here, 1.0, least=problem.slots_of_rank[rank], most=problem.slots_of_rank[rank])
        if problem.load_cap is not None:
            program.row(here, total[:, None] * share, most=problem.load_cap * total.sum() * speed / fair)
        for window, load in enumerate(counts):
            weight = load[:, None] * share / max(load.sum(), 1.0) * fair / speed
            program.row([*here.ravel(), peak[window]], [*weight.ravel(), -1.0], most=0.0)
    for window in peak:
        program.cost[window] = 1.0 / len(counts)
        program.row(window, 1.0, least=least)
    return program, stands


def even_program(chain: Chain, layer: int, speed: Floats) -> tuple[Program, Ints]:
    """Items of one layer dealt so that the slowest rank is fastest: (program, int64[S, ranks] columns)."""
    program, scale = Program(), chain.load[layer].sum() / speed.sum() or 1.0
    stands = program.columns(chain.load.shape[1], len(chain.room))
    _deal(program, stands, chain.load[layer], chain.room, np.full(len(chain.room), np.inf))
    peak = int(program.columns(1, upper=np.inf, whole=False)[0])
    for rank, column in enumerate(stands.T):
        program.row([*column, peak], [*chain.load[layer] / scale / speed[rank], -1.0], most=0.0)
    program.cost[peak] = 1.0
    program.row(peak, 1.0, least=1.0)
    return program, stands
