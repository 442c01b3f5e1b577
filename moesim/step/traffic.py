"""Traffic: where the tokens of one layer go under one placement. The only routing object that costs and network see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.network import Copies, count_copies
from moesim.routing.slots import chosen, turns
from moesim.step.dispatch import EVEN, candidates


class SentRows(Protocol):
    """Who sends each row, and of which token it is: a `Batch`, or a routing source's `Rows`."""

    @property
    def token_rank(self) -> npt.NDArray[np.int32]:
        """int32[N]."""

    @property
    def token_request(self) -> npt.NDArray[np.int64]:
        """int64[N]."""

    @property
    def token_position(self) -> npt.NDArray[np.int64]:
        """int64[N]."""


@dataclass(frozen=True)
class Traffic:
    """rows int64[slots] (token-expert rows each slot computes), load int64[experts], copies per level from where tokens
    are to their experts; back: copies from where results are wanted to the experts; stays int32[tokens]: the rank where
    each token is afterwards.
    """

    rows: npt.NDArray[np.int64]
    load: npt.NDArray[np.int64]
    copies: Copies
    back: Copies
    stays: npt.NDArray[np.int32]


def choose_slots(
    experts: npt.NDArray[np.uint16],
    batch: SentRows,
    placement: Placement,
    layer: int,
    source: npt.NDArray[np.int32],
    node_of_rank: npt.NDArray[np.int32],
    ways: int = 1,
    way: int = EVEN,
) -> npt.NDArray[np.int32]:
    """uint16[tokens, k] experts, source int32[tokens] ranks -> int32[tokens, k] slots, -1 where there is no expert.

    Of the replicas that `way` (step/dispatch.py) lets a token's rank take it takes one by a hash of (request,
    position), so that neither batching nor order changes a token's way.
    """
    slots, allowed = candidates(placement, layer, node_of_rank[::ways], way)
    row = source // np.int32(ways) if len(slots) > 1 else np.zeros(len(experts), dtype=np.int32)
    return chosen(experts, row, turns(batch.token_request, batch.token_position, slots.shape[2]), slots, allowed)


def traffic(
    experts: npt.NDArray[np.uint16],
    batch: SentRows,
    placement: Placement,
    layer: int,
    node_of_rank: npt.NDArray[np.int32],
    ways: int = 1,
    way: int = EVEN,
    at: npt.NDArray[np.int32] | None = None,
) -> Traffic:
    """uint16[tokens, k] experts of one layer -> Traffic, exact: every token's choices are known.

    `node_of_rank` int32[ranks]. Copies are token counts from source rank to destination rank or node. `ways` ranks
    share the experts of one of the placement's ranks (expert tensor parallelism); `way`: see step/dispatch.py. Tokens
    that travel are at ranks `at` int32[tokens] and stay with their first expert; None: they come back home. Raises
    BadInput where a layer has other rows than the one before.
    """
    start = batch.token_rank if at is None else at
    slots = choose_slots(experts, batch, placement, layer, start, node_of_rank, ways, way)
    ranks = _ranks(slots, placement, layer, batch.token_rank, ways)
    if len(start) != len(ranks):
        raise BadInput("tokens travel with one expert each, this router has other rows in every layer")
    there = back = count_copies(start, ranks, len(node_of_rank), node_of_rank)
    stays = start if at is None else np.where(ranks[:, 0] >= 0, ranks[:, 0], start).astype(np.int32)
    if at is not None:
        back = count_copies(stays, ranks, len(node_of_rank), node_of_rank)
    return Traffic(*_load(slots, placement, layer), there, back, stays)


def _ranks(
    slots: npt.NDArray[np.int32], placement: Placement, layer: int, source: npt.NDArray[np.int32], ways: int
) -> npt.NDArray[np.int32]:
    """int32[tokens, k] slots -> ranks, -1 where there is no slot. Of the `ways` ranks that share an expert a row goes
    to the one in its source's place, who hands it to the others.
    """
    holder: npt.NDArray[np.int32] = np.append(placement.slot_rank[layer], np.int32(-1)).take(slots)
    if ways == 1:
        return holder
    return np.where(holder < 0, -1, holder * ways + source[:, None] % ways).astype(np.int32)


def _load(
    slots: npt.NDArray[np.int32], placement: Placement, layer: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """int32[tokens, k] slots -> rows of each slot, load of each expert."""
    rows = np.bincount(slots.ravel() + 1, minlength=placement.num_slots + 1)[1:]
    held = placement.filled[layer]
    load = np.bincount(placement.slot_expert[layer, held], rows[held], placement.num_experts)
    return rows, load.astype(np.int64)
