"""Compiled: which share of its expert's tokens each slot of a layer gets, where that follows from where replicas stand.

Tokens are taken to start evenly on all ranks, as under data-parallel attention. Four ways are known: equal shares
(EVEN); own rank, own node, anywhere, equals evenly (NEAREST); own rank, the first in the own node, anywhere (FIRST);
rank r takes replica r modulo their number (MODULO).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import njit
from moesim.step.dispatch import EVEN, FIRST, MODULO, NEAREST

__all__ = ["EVEN", "FIRST", "MODULO", "NEAREST", "share_out", "slot_shares"]


@njit
def slot_shares(slot_expert: Any, owner: Any, node: Any, experts: Any, way: Any) -> Any:
    """slot_expert, owner (a rank) int64[slots], node int64[ranks] -> float64[slots]; an expert's shares add up to 1.

    Cells that are EMPTY (-1) have none.
    """
    slots = len(slot_expert)
    last, before = np.full(experts, -1, np.int64), np.full(slots, -1, np.int64)
    for slot in range(slots - 1, -1, -1):  # a chain of the slots of each expert, ascending
        if slot_expert[slot] >= 0:
            before[slot] = last[slot_expert[slot]]
            last[slot_expert[slot]] = slot
    share, members = np.zeros(slots), np.empty(slots, np.int64)
    for expert in range(experts):
        count, slot = 0, last[expert]
        while slot >= 0:
            members[count] = slot
            count, slot = count + 1, before[slot]
        if count:
            share_out(members[:count], owner, node, way, share)
    return share


@njit
def share_out(members: Any, owner: Any, node: Any, way: Any, share: Any) -> None:
    """members: the slots of one expert, ascending; fills share[members]."""
    count, ranks = len(members), len(node)
    for slot in members:
        share[slot] = 1.0 / count if way == EVEN or count == 1 else 0.0
    if way == EVEN or count == 1:
        return
    if way == MODULO:
        for number in range(count):
            share[members[number]] = ((ranks - number - 1) // count + 1) / ranks
        return
    for rank in range(ranks):
        own, near = 0, 0
        for slot in members:
            own += owner[slot] == rank
            near += node[owner[slot]] == node[rank]
        for slot in members:
            fits = owner[slot] == rank if own else (node[owner[slot]] == node[rank] or not near)
            if fits:
                alone = way == FIRST and (own or near)
                share[slot] += (1.0 if alone else 1.0 / (own if own else (near if near else count))) / ranks
                if alone:
                    break
