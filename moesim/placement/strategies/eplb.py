"""eplb: DeepSeek's expert load balancer, the yardstick. Looks at mean load only; replicas may meet on one rank.

The algorithm is that of deepseek-ai/EPLB (commit d52c72d), in single precision like the original, so that its choices
are the same to the bit wherever different experts do not tie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.placement.budget import Budget
from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Answer

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def rebalance_experts(
    weight: npt.ArrayLike, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[Ints, Ints, Ints]:
    """weight [layers, experts] -> phy2log int64[layers, num_replicas], log2phy int64[layers, experts, most replicas]
    (-1: fewer), logcnt int64[layers, experts]. GPU g holds the physical experts from g x num_replicas / num_gpus on.

    Hierarchical where the expert groups divide over the nodes, else global. Raises BadInput where sizes do not divide.
    """
    load = np.asarray(weight, dtype=np.float32)
    if min(num_groups, num_nodes, num_gpus) < 1:
        raise BadInput(f"{num_groups} groups, {num_nodes} nodes, {num_gpus} GPUs", way_out="1 or more of each")
    if not (load >= 0).all():
        raise BadInput("a weight is negative or not a number")
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    _check_sizes(load, num_replicas, num_groups, num_nodes, num_gpus)
    log_of_mlog = _groups_to_nodes(load, num_groups, num_nodes)  # slots of nodes -> experts
    layers, experts = load.shape
    in_node = np.take_along_axis(load, log_of_mlog, axis=1).reshape(layers * num_nodes, -1)
    expert, number, counts = _replicas(in_node, num_replicas // num_nodes)
    order = _packed(np.take_along_axis(in_node / counts, expert, axis=1), num_gpus // num_nodes)
    first = np.tile(np.arange(num_nodes) * (experts // num_nodes), layers)[:, None]
    place = (np.take_along_axis(expert, order, axis=1) + first).reshape(layers, -1)
    number = np.take_along_axis(number, order, axis=1).reshape(layers, -1)
    phy2log = np.take_along_axis(log_of_mlog, place, axis=1)
    logcnt = np.empty((layers, experts), dtype=np.int64)
    np.put_along_axis(logcnt, log_of_mlog, counts.reshape(layers, -1), axis=1)
    log2phy = np.full((layers, experts, int(logcnt.max())), -1, dtype=np.int64)
    log2phy[np.arange(layers)[:, None], phy2log, number] = np.arange(num_replicas)
    return phy2log, log2phy, logcnt


def _check_sizes(load: Floats, replicas: int, groups: int, nodes: int, gpus: int) -> None:
    if load.ndim != 2:
        raise BadInput(f"weight {load.shape} is not [layers, experts]")
    experts = load.shape[1]
    for name, whole, part in (
        ("experts over groups", experts, groups),
        ("GPUs over nodes", gpus, nodes),
        ("replicas over GPUs", replicas, gpus),
    ):
        if whole % part:
            raise BadInput(f"EPLB needs {name} to divide: {whole} over {part}", way_out=f"{-(-whole // part) * part}")
    if replicas < experts:
        raise BadInput(f"{replicas} replicas for {experts} experts", way_out=f"{-(-experts // gpus) * gpus}")


def _groups_to_nodes(load: Floats, groups: int, nodes: int) -> Ints:
    """Step 1: groups are packed to nodes -> int64[layers, experts]: the experts, node after node."""
    layers, experts = load.shape
    of_group = np.arange(experts).reshape(groups, -1)
    order = _packed(load.reshape(layers, groups, -1).sum(axis=2, dtype=np.float32), nodes)
    return of_group[order].reshape(layers, experts)


def _replicas(load: Floats, slots: int) -> tuple[Ints, Ints, Ints]:
    """Step 2: load [rows, E] -> expert and replica number of each slot int64[rows, slots], replicas int64[rows, E]."""
    rows, experts = load.shape
    expert, number = np.tile(np.arange(slots), (rows, 1)), np.zeros((rows, slots), dtype=np.int64)
    counts, row = np.ones((rows, experts), dtype=np.int64), np.arange(rows)
    for slot in range(experts, slots):
        hottest = (load / counts).argmax(axis=1)
        expert[:, slot], number[:, slot] = hottest, counts[row, hottest]
        counts[row, hottest] += 1
    return expert, number, counts


def _packed(load: npt.NDArray[Any], packs: int) -> Ints:
    """Steps 1 and 3: load [rows, items] -> int64[rows, items]: the items, pack after pack, equally many in each.

    Heaviest first to the lightest pack that has room; one item a pack stays in the given order.
    """
    rows, items = load.shape
    room, row = items // packs, np.arange(rows)
    if room == 1:
        return np.tile(np.arange(items), (rows, 1))
    result = np.empty((rows, packs, room), dtype=np.int64)
    weight, taken = np.zeros((rows, packs), dtype=np.float32), np.zeros((rows, packs), dtype=np.int64)
    for item in np.argsort(-load, axis=1, kind="stable").T:
        pack = np.where(taken < room, weight, np.inf).argmin(axis=1)
        result[row, pack, taken[row, pack]] = item
        weight[row, pack] += load[row, item].astype(np.float32)
        taken[row, pack] += 1
    return result.reshape(rows, items)


class Eplb:
    """All ranks as one pool."""

    name, summary = "eplb", "DeepSeek's EPLB, global policy; the yardstick"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """On the load of all windows together. Raises BadInput for uneven slots."""
        return _answer(problem, 1, 1)


class EplbHierarchical:
    """Expert groups stay in one node."""

    name, summary = "eplb_hierarchical", "DeepSeek's EPLB, hierarchical policy: expert groups stay in a node"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput where the groups of the problem do not divide over its nodes."""
        if problem.groups % problem.nodes:
            raise BadInput(
                f"{problem.groups} expert groups do not divide over {problem.nodes} nodes",
                way_out="strategy eplb, the global policy",
            )
        return _answer(problem, problem.groups, problem.nodes)


def _answer(problem: PlacementProblem, groups: int, nodes: int) -> Answer:
    if len(np.unique(problem.slots_of_rank)) > 1:
        fits = -(-problem.slots // problem.ranks) * problem.ranks - problem.experts
        way_out = f"--redundant {fits}, or strategy lpt or multiwindow"
        raise BadInput("EPLB needs equally many slots on every rank", way_out=way_out)
    return Answer(problem.place(rebalance_experts(problem.load, problem.slots, groups, nodes, problem.ranks)[0]))
