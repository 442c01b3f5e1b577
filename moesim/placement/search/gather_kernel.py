"""Compiled search for groups of experts that few tokens have to visit: simulated annealing, one layer at a time.

tokens int32[T, k] (-1: none). group int64[experts]: where each expert stands. count int8[T, groups]: experts of a token
in each group. alone int64[experts, groups]: tokens of an expert that have no other expert in the group, so that an
expert costs alone[e, g] visits where it stands or would stand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moesim.compiled import inner, njit


@njit
def gather(tokens: Any, load: Any, group: Any, cap: Any, room: Any, draws: Any, chance: Any, heat: Any) -> None:
    """`group` changes in place: draws int32[N, 2] (expert, other expert to swap with, or experts + group to move to),
    chance float64[N] in (0, 1], heat float64[N] visits; cap float64[groups] load, room int64[groups] experts.

    A change that costs d visits more is taken with probability exp(-d / heat), none that leads further above a cap.
    """
    experts, groups = len(load), len(cap)
    first, of_expert = _index(tokens, experts)
    count, alone = _counts(tokens, group, groups)
    held, number = np.zeros(groups), np.zeros(groups, np.int64)
    for e in range(experts):
        held[group[e]] += load[e]
        number[group[e]] += 1
    for n in range(len(draws)):
        e, f = draws[n, 0], draws[n, 1]
        swap = f < experts
        a, b = group[e], group[f] if swap else f - experts
        more = load[e] - (load[f] if swap else 0.0)
        if a == b or held[b] + more > max(cap[b], held[b]) or held[a] - more > max(cap[a], held[a]):
            continue
        if not swap and (number[b] >= room[b] or number[a] == 1):
            continue
        most = -math.log(chance[n]) * heat[n]
        cost = alone[e, b] - alone[e, a]
        if swap:
            cost += alone[f, a] - alone[f, b]
            if cost <= most:  # tokens of both change nothing: what they seemed to save is added back
                cost += _shared(tokens, first, of_expert, count, e, f, a, b)
        if cost > most or (cost == most and heat[n] == 0.0):
            continue
        _shift(tokens, first, of_expert, count, alone, group, e, b)
        if swap:
            _shift(tokens, first, of_expert, count, alone, group, f, a)
        held[b] += more
        held[a] -= more
        number[b] += not swap
        number[a] -= not swap


@njit
def _index(tokens: Any, experts: Any) -> Any:
    """Tokens of expert e: of_expert[first[e] : first[e + 1]]."""
    first = np.zeros(experts + 1, np.int64)
    for expert in tokens.flat:
        if expert >= 0:
            first[expert + 1] += 1
    first = np.cumsum(first)
    at, of_expert = first.copy(), np.empty(first[-1], np.int64)
    for t in range(len(tokens)):
        for expert in tokens[t]:
            if expert >= 0:
                of_expert[at[expert]] = t
                at[expert] += 1
    return first, of_expert


@njit
def _counts(tokens: Any, group: Any, groups: Any) -> Any:
    count, alone = np.zeros((len(tokens), groups), np.int8), np.zeros((len(group), groups), np.int64)
    for t in range(len(tokens)):
        for expert in tokens[t]:
            if expert >= 0:
                count[t, group[expert]] += 1
        for expert in tokens[t]:
            if expert >= 0:
                for g in range(groups):
                    alone[expert, g] += count[t, g] == (group[expert] == g)
    return count, alone


@inner
def _shared(tokens: Any, first: Any, of_expert: Any, count: Any, e: Any, f: Any, a: Any, b: Any) -> Any:
    """Visits of tokens with both experts that either would save if it left alone."""
    if first[e + 1] - first[e] > first[f + 1] - first[f]:
        e, f = f, e
    total = 0
    for n in range(first[e], first[e + 1]):
        t = of_expert[n]
        saved = (count[t, a] == 1) + (count[t, b] == 1)
        if saved:
            for k in range(tokens.shape[1]):
                if tokens[t, k] == f:
                    total += saved
    return total


@inner
def _shift(
    tokens: Any, first: Any, of_expert: Any, count: Any, alone: Any, group: Any, e: Any, b: Any
) -> None:  # fmt: skip
    """Expert e goes to group b; the counts follow."""
    a = group[e]
    for n in range(first[e], first[e + 1]):
        t = of_expert[n]
        for k in range(tokens.shape[1]):
            other = tokens[t, k]
            if other >= 0 and other != e:
                alone[other, a] += count[t, a] - 1 == (group[other] == a)
                alone[other, b] -= count[t, b] == (group[other] == b)
        count[t, a] -= 1
        count[t, b] += 1
    group[e] = b
