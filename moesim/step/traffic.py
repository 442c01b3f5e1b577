"""Traffic: where the tokens of one layer go under one placement. The only routing object that costs and network see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.layout import Placement
from moesim.network import Copies, count_copies
from moesim.step.batch import Batch

NO_EXPERT = 65535


@dataclass(frozen=True)
class Traffic:
    """rows int64[slots] (token-expert rows each slot computes), load int64[experts], copies per level."""

    rows: npt.NDArray[np.int64]
    load: npt.NDArray[np.int64]
    copies: Copies


def choose_slots(
    experts: npt.NDArray[np.uint16], batch: Batch, placement: Placement, layer: int
) -> npt.NDArray[np.int32]:
    """uint16[tokens, k] experts -> int32[tokens, k] slots, -1 where the token has no expert.

    An expert with r replicas gives each an even share: the replica is a hash of (request, position) modulo r, so that
    neither batching nor order changes a token's way (SGLang's static dispatch draws once at random instead).
    """
    replicas, table = placement.replicas[layer], placement.expert_slots[layer]
    none = experts == NO_EXPERT
    expert = np.where(none, 0, experts).astype(np.intp)
    slots = table[expert, 0]
    if table.shape[1] > 1:
        salt = streams.key("dispatch", "replica")
        ticket = streams.hash_ints(salt, batch.token_request, batch.token_position)
        which = (ticket[:, None] >> np.uint64(16)).astype(np.int64) % replicas[expert]
        slots = table[expert, which]
    return np.where(none, np.int32(-1), slots).astype(np.int32)


def traffic(
    experts: npt.NDArray[np.uint16],
    batch: Batch,
    placement: Placement,
    layer: int,
    node_of_rank: npt.NDArray[np.int32],
) -> Traffic:
    """uint16[tokens, k] experts of one layer -> Traffic, exact: every token's choices are known.

    `node_of_rank` int32[ranks]. Copies are token counts from source rank to destination rank or node.
    """
    slots = choose_slots(experts, batch, placement, layer)
    kept = slots[slots >= 0]
    rows = np.bincount(kept, minlength=placement.num_slots)
    load = np.bincount(experts[experts != NO_EXPERT], minlength=placement.num_experts)
    destination = np.where(slots >= 0, placement.slot_rank[layer][slots], np.int32(-1))
    return Traffic(rows, load, count_copies(batch.token_rank, destination, batch.ranks, node_of_rank))
