"""Tokens that follow given expert shares: distinct experts, at most `topk_groups` groups, exact expected loads.

Systematic sampling with unequal probabilities (Madow 1949), in three stages: which groups, how many experts of each,
which experts. An expert's inclusion probability is k times its share, unless that exceeds one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ORDERS = 16  # shuffles that tokens are spread over, so that many pairs of experts meet
HOTTEST = 0.98  # the most that an expert may be chosen: at one, every token would take it


def sample_tokens(
    share: Floats, top_k: int, groups: int, used: int, tokens: int, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """share [E] -> uint16[tokens, top_k] distinct experts of at most `used` of `groups` groups; rows are shuffled."""
    chance = capped(share, top_k, HOTTEST)
    if used >= groups:
        found = _systematic(chance, tokens, top_k, rng)
    else:
        found = _in_groups(chance.reshape(groups, -1), top_k, used, tokens, rng)
    return rng.permutation(found, axis=0).astype(np.uint16)


def capped(weights: Floats, total: float, most: float) -> Floats:
    """[E] weights -> [E] proportional chances with sum `total`, none above `most`; the excess goes to the others."""
    chance = weights * (total / weights.sum())
    for _ in range(len(weights)):
        over = chance >= most
        if not (chance > most).any() or over.all():
            break
        chance = np.where(over, most, weights * ((total - most * over.sum()) / weights[~over].sum()))
    result: Floats = np.minimum(chance, most)
    return result


def _in_groups(chance: Floats, top_k: int, used: int, tokens: int, rng: np.random.Generator) -> Ints:
    """chance [groups, size], expected choices -> int64[tokens, top_k]."""
    groups, size = chance.shape
    count = _counts(chance.sum(axis=1), used, top_k, tokens, rng)
    if count.max() > size:
        count = np.minimum(count, size)
    found = np.full((tokens, top_k), -1, dtype=np.int64)
    filled = np.zeros(tokens, dtype=np.int64)
    for group in range(groups):
        for number in map(int, np.unique(count[:, group])):
            rows = np.flatnonzero(count[:, group] == number)
            if number:
                members = _systematic(capped(chance[group], number, 1.0), len(rows), number, rng)
                found[rows[:, None], filled[rows][:, None] + np.arange(number)] = group * size + members
                filled[rows] += number
    return found


def _counts(expected: Floats, used: int, top_k: int, tokens: int, rng: np.random.Generator) -> Ints:
    """expected [groups] choices of a token -> int64[tokens, groups] choices, `used` groups at most, top_k in total.

    A group that wants more than an even part is always among the chosen ones; the others share the remaining places.
    """
    always = np.zeros(len(expected), dtype=bool)
    for _ in range(used):
        part = (top_k - expected[always].sum()) / max(used - always.sum(), 1)
        grown = always | (expected >= part)
        if grown.sum() >= used or (grown == always).all():
            break
        always = grown
    part = (top_k - expected[always].sum()) / (used - always.sum())
    inside = np.where(always, 1.0, np.minimum(expected / part, 1.0))
    groups = _systematic(inside * (used / inside.sum()), tokens, used, rng)
    mean = np.where(always, expected, part)[groups]
    edges = np.cumsum(mean, axis=1) * (top_k / mean.sum(axis=1, keepdims=True)) + rng.random((tokens, 1))
    whole = np.floor(np.concatenate([edges[:, :1] * 0 + edges[:, -1:] - top_k, edges], axis=1) + 1e-9).astype(np.int64)
    count = np.zeros((tokens, len(expected)), dtype=np.int64)
    np.put_along_axis(count, groups, np.diff(whole, axis=1), axis=1)
    return count


def _systematic(chance: Floats, tokens: int, number: int, rng: np.random.Generator) -> Ints:
    """chance [E] <= 1 with sum `number` -> int64[tokens, number] distinct indices with those inclusion chances."""
    orders = rng.permuted(np.tile(np.arange(len(chance)), (ORDERS, 1)), axis=1)
    edges = np.cumsum(chance[orders], axis=1)
    edges *= number / edges[:, -1:]
    turn = rng.permutation(tokens)
    which, step = turn % ORDERS, turn // ORDERS  # stratified within each shuffle, so that loads are nearly exact
    point = (step[:, None] + rng.random((tokens, 1))) / -(-tokens // ORDERS) + np.arange(number)
    offset = np.arange(ORDERS) * (number + 1.0)
    place = np.searchsorted((edges + offset[:, None]).ravel(), point + offset[which][:, None], side="right")
    place = np.minimum(place - which[:, None] * len(chance), len(chance) - 1)
    found: Ints = orders[which[:, None], place]
    return found
