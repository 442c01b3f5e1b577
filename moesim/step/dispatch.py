"""Which replica of an expert a token takes: the engine's rule. Ways are numbers, since compiled searches use them too.

EVEN: a hash of the token, so that each replica gets an even share (EPLB's assumption; SGLang's static dispatch draws
once at random instead). NEAREST: own rank, own node, anywhere, equals evenly. FIRST: own rank, the first slot in the
own node, anywhere (sgl-project/sglang, srt/eplb/expert_location.py). MODULO: rank r takes replica r modulo their number
(vllm-project/vllm-ascend, `generate_log2phy_map`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement

EVEN: Final = 0
NEAREST: Final = 1
FIRST: Final = 2
MODULO: Final = 3


def candidates(
    placement: Placement, layer: int, node_of_rank: npt.NDArray[np.integer], way: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """node_of_rank int[ranks of the placement] -> slots int32[ranks or 1, experts, most] that a token of a rank may
    take, those first that it may, and their number int64[ranks or 1, experts].
    """
    slots, replicas = placement.expert_slots[layer][None], placement.replicas[layer][None]
    if way == EVEN or slots.shape[2] == 1:
        return slots, replicas
    rank = np.arange(placement.num_ranks)
    if way == MODULO:
        at = rank[:, None] % replicas
        return np.take_along_axis(slots, at[..., None], axis=2), np.ones_like(at)
    there = slots >= 0
    owner = placement.slot_rank[layer][slots]
    own, near = there & (owner == rank[:, None, None]), there & (node_of_rank[owner] == node_of_rank[:, None, None])
    fits = np.where(own.any(2)[..., None], own, np.where(near.any(2)[..., None], near, there))
    if way == FIRST:
        fits &= ~near.any(2)[..., None] | (np.cumsum(fits, axis=2) == 1)
    order = np.argsort(~fits, axis=2, kind="stable")
    return np.take_along_axis(np.broadcast_to(slots, fits.shape), order, axis=2), fits.sum(axis=2)
