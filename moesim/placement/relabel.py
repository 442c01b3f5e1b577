"""Relabelling: ranks of a new placement take over each other's roles so that fewest experts move.

Which of several equal ranks plays which role does not change the load of any rank. Ranks are first matched within each
pair of nodes and then nodes with each other, so that experts that share a node go on sharing one: the traffic between
nodes of the new placement stays as it was planned. Both are exact assignments (Hungarian method, scipy).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy

from moesim.layout import EMPTY, Placement

Ints = npt.NDArray[np.int64]
NEVER = -(10**6)  # the worth of a match that is not allowed


def relabel(before: Placement, after: Placement, node_of_rank: Ints, kind_of_rank: Ints | None = None) -> Placement:
    """`after` with ranks renamed layer by layer, and kept experts in the slots where they stood.

    node_of_rank int[ranks]; kind_of_rank int[ranks]: only ranks of one kind (speed, say) may take each other's roles,
    and only those with equally many slots ever do.
    """
    kinds = np.zeros(after.num_ranks, dtype=np.int64) if kind_of_rank is None else kind_of_rank
    rows, owners = [], []
    for layer in range(after.num_layers):
        kind = kinds * after.num_slots + after.owned[layer]
        role = roles(held_by(before, layer), held_by(after, layer), node_of_rank, kind)
        experts = [_held(after, layer, role[rank]) for rank in range(len(role))]
        kept = [_held(before, layer, rank) for rank in range(len(role))]
        row = np.concatenate([in_place(old, new) for old, new in zip(kept, experts, strict=True)])
        owner = np.repeat(np.arange(len(role), dtype=np.int32), [len(one) for one in experts])
        spare = after.num_slots - len(row)  # cells that the layer does not have stand last
        rows.append(np.pad(row, (0, spare), constant_values=EMPTY))
        owners.append(np.pad(owner, (0, spare), constant_values=after.num_ranks - 1))
    return Placement(np.stack(rows).astype(np.int32), np.stack(owners), after.num_experts, after.num_ranks)


def _held(placement: Placement, layer: int, rank: int) -> npt.NDArray[np.int32]:
    """The experts of a rank, slot by slot."""
    mine = placement.filled[layer] & (placement.slot_rank[layer] == rank)
    found: npt.NDArray[np.int32] = placement.slot_expert[layer, mine]
    return found


def held_by(placement: Placement, layer: int) -> npt.NDArray[np.bool_]:
    """bool[ranks, experts]: which rank holds which expert of a layer."""
    found = np.zeros((placement.num_ranks, placement.num_experts), dtype=bool)
    slots = placement.filled[layer]
    found[placement.slot_rank[layer, slots], placement.slot_expert[layer, slots]] = True
    return found


def roles(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], node_of_rank: Ints, kind_of_rank: Ints) -> Ints:
    """bool[ranks, experts] held before and planned -> int[ranks]: the planned rank whose experts each rank takes."""
    worth = before.astype(np.float32) @ after.astype(np.float32).T  # [rank, role]: experts that stay
    worth[kind_of_rank[:, None] != kind_of_rank[None, :]] = NEVER
    members = [np.flatnonzero(node_of_rank == node) for node in np.unique(node_of_rank)]
    total = np.full((len(members), len(members)), float(NEVER) * len(before))
    matched: dict[tuple[int, int], Ints] = {}
    for here, ranks in enumerate(members):
        for there, planned in enumerate(members):
            if len(ranks) == len(planned):
                part = worth[np.ix_(ranks, planned)]
                row, column = scipy.optimize.linear_sum_assignment(part, maximize=True)
                total[here, there], matched[here, there] = part[row, column].sum(), planned[column]
    role = np.empty(len(before), dtype=np.int64)
    for here, there in np.stack(scipy.optimize.linear_sum_assignment(total, maximize=True), axis=1).tolist():
        role[members[here]] = matched[here, there]
    return role


def in_place(old: npt.NDArray[np.int32], new: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Slots of one rank before and after, in any order -> the new experts, those that stay in the slots they had."""
    if len(old) != len(new):
        return new
    waiting, result = new.tolist(), np.full(len(old), -1, dtype=np.int32)
    for slot, expert in enumerate(old.tolist()):
        if expert in waiting:
            waiting.remove(expert)
            result[slot] = expert
    result[result < 0] = waiting
    return result
