"""How far the choices of the same tokens moved between two engines, or two versions of a router.

Sources: R3 (arXiv 2510.11370) counts layers and tokens whose experts differ between rollout and training; RSPO (arXiv
2510.23027) weighs a token by how far the scores of its old experts moved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.routing.shape import NO_EXPERT
from moesim.routing.stats.locality import overlap

Floats = npt.NDArray[np.float64]
Experts = npt.NDArray[np.uint16]


def moved_layers(first: Experts, second: Experts) -> npt.NDArray[np.int64]:
    """[N, L, k] chosen experts of the same tokens twice -> int64[N]: layers in which the two sets differ."""
    alike = (overlap(first, second) == 1) & (overlap(second, first) == 1)
    empty = (first == NO_EXPERT).all(axis=2) & (second == NO_EXPERT).all(axis=2)
    result: npt.NDArray[np.int64] = (~(alike | empty)).sum(axis=1)
    return result


def shift_ratio(chosen: Experts, old: npt.NDArray[np.float16], new: npt.NDArray[np.float16]) -> Floats:
    """chosen [N, L, k] of the old router, logits [N, L, E] of both -> float64[N], RSPO's ratio of a token.

    exp of minus the mean over layers of the mean over old experts of |log p_new - log p_old|: 1 where nothing moved.
    """
    taken = chosen != NO_EXPERT
    ids = np.where(taken, chosen, 0).astype(np.int64)
    moved = np.abs(np.take_along_axis(_log_softmax(new) - _log_softmax(old), ids, axis=2))
    distance = np.where(taken, moved, 0.0).sum(axis=2) / np.maximum(taken.sum(axis=2), 1)
    result: Floats = np.exp(-distance.mean(axis=1))
    return result


def _log_softmax(logits: npt.NDArray[np.float16]) -> Floats:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=2, keepdims=True)
    result: Floats = wide - np.log(np.exp(wide).sum(axis=2, keepdims=True))
    return result
