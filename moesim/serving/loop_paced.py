"""A compiled loop whose steps take what a Pace says, where it keeps routings and steps are sums (step/rates.py)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from moesim.compiled import inner, njit
from moesim.serving.clock import with_prompts
from moesim.serving.loop_kernel import PRICE, advance, hosted, lasts
from moesim.serving.loop_queue import (
    AHEAD,
    CACHED,
    CHUNKS,
    DECODES,
    EMITTED,
    PENDING,
    PROMPT,
    SINCE,
    SPARE,
    STEPS,
)
from moesim.serving.requests import Ints
from moesim.step.cores import CONTEXT_BITS
from moesim.step.rates import UNKNOWN, decoded, of_rank, prefilled, slot

NOBODYS = -2  # a place that nobody asks for


class Keeps(NamedTuple):
    """Of a Pace: hashes int64[room] (0: free), shapes int64[room, ranks + 1]: of batches whose routing is kept; step,
    unrouted, uses int64[room]: as in Kept; bucket int64[tokens]: of numbers of tokens; every: uses of a routing;
    counted int64[2, 2]: kinds of rows of attention's core and those outside of what was measured, in all and of the
    last step; steps int64[1]: how many were priced; shape
    int64[ranks + 1] and busy int64[ranks] are scratch.
    """

    hashes: Ints
    shapes: Ints
    step: Ints
    unrouted: Ints
    uses: Ints
    bucket: Ints
    every: int
    counted: Ints
    steps: Ints
    shape: Ints
    busy: Ints


@njit
def hash_of(shape: Any) -> Any:
    """A number above 0 for int64[n]."""
    found = np.int64(0x345678)
    for number in range(shape.shape[0]):
        found = (found ^ (shape[number] + 0x632BE5AB)) * 0x9E3779B97F4A7C1
        found ^= (found >> 29) & 0x7FFFFFFFF
    return (found & 0x7FFFFFFFFFFFFFFF) | 1


@inner
def chunk_tokens(s: Any, r: Any) -> Any:
    """Of prompts of a scheduler's step."""
    tokens = 0
    for number in range(s.at[r, CHUNKS]):
        tokens += s.tokens[r, number]
    return tokens


@inner
def place_of(s: Any, e: Any, replica: Any, whole: Any, k: Any) -> Any:
    """Where the routing of a replica's step is kept, whole or without its prompts, UNKNOWN where it is not. As
    `pace.shape_of`.
    """
    ranks, several, every = e.many, 0, 0
    k.shape[:] = 0
    for number in range(ranks):
        r = replica * e.many + number
        tokens = chunk_tokens(s, r) if whole else 0
        every += tokens + s.at[r, DECODES]
        if every >= k.bucket.shape[0]:
            return UNKNOWN
        if tokens:
            place = ranks - 1 - several
            while place + 1 < ranks and k.shape[place + 1] < k.bucket[tokens]:
                k.shape[place] = k.shape[place + 1]
                place += 1
            k.shape[place] = k.bucket[tokens]
            several += 1
    k.shape[ranks] = k.bucket[every]
    place = slot(k.hashes, hash_of(k.shape))
    for number in range(ranks + 1 if place >= 0 else 0):
        if k.shapes[place, number] != k.shape[number]:
            return UNKNOWN
    return place


@inner
def core_seconds(s: Any, r: Any, ahead: Any, whole: Any, rates: Any, counted: Any) -> Any:
    """Of a scheduler's rows, prompts among them where the step is whole; below 0 where some were not asked for."""
    at, core = s.at[r], 0.0
    if at[DECODES]:
        for number in range(at[DECODES]):
            s.scratch[number] = s.of[s.ordered[r, number], CACHED]
        core = decoded(rates, s.scratch, at[DECODES], ahead, counted)
    if core < 0 or not whole or not at[CHUNKS]:
        return core
    for number in range(at[CHUNKS]):
        found = s.tokens[r, number] << CONTEXT_BITS | s.of[s.chunked[r, number], CACHED]
        place = number
        while place > 0 and s.scratch[place - 1] > found:
            s.scratch[place] = s.scratch[place - 1]
            place -= 1
        s.scratch[place] = found
    more = prefilled(rates, s.scratch, at[CHUNKS], counted)
    return core + more if more >= 0 else more


@inner
def emits(s: Any, r: Any, whole: Any) -> Any:
    """Tokens of a scheduler's step that go through the head."""
    found = s.at[r, DECODES]
    for number in range(s.at[r, CHUNKS] if whole else 0):
        of = s.of[s.chunked[r, number]]
        found += of[CACHED] + s.tokens[r, number] == of[PROMPT] + of[EMITTED]
    return found


@inner
def busy(s: Any, e: Any, replica: Any, whole: Any, k: Any) -> Any:
    """Fills k.busy with the schedulers that bring rows -> how many."""
    several = 0
    for r in range(replica * e.many, (replica + 1) * e.many):
        if s.at[r, DECODES] + (s.at[r, CHUNKS] if whole else 0):
            k.busy[several] = r
            several += 1
    return several


@inner
def kinds(s: Any, e: Any, replica: Any) -> Any:
    """Of a replica's step: are some rows of prompts, are some decoded ones, and the most tokens of a scheduler."""
    prompts, decodes, most = False, False, 0
    for r in range(replica * e.many, (replica + 1) * e.many):
        prompts |= s.at[r, CHUNKS] > 0
        decodes |= s.at[r, DECODES] > 0
        most = max(most, s.at[r, DECODES] + chunk_tokens(s, r))
    return prompts, decodes, most


@inner
def unrouted(s: Any, e: Any, replica: Any, whole: Any, rates: Any, k: Any) -> Any:
    """ps of what no routing decides, on the rank that needs longest; UNKNOWN where something was not asked for."""
    steps, counted = s.own[replica, STEPS] + s.own[replica, AHEAD], k.counted[1]
    several = busy(s, e, replica, whole, k)
    slowest = of_rank(rates, 1, 0, 0.0) if several < e.many else np.int64(0)
    for number in range(several if slowest >= 0 else 0):
        r = k.busy[number]
        core = core_seconds(s, r, steps - s.at[r, SINCE], whole, rates, counted)
        if core < 0:
            return np.int64(UNKNOWN)
        tokens = s.at[r, DECODES] + (chunk_tokens(s, r) if whole else 0)
        took = of_rank(rates, tokens, emits(s, r, whole), core)
        if took < 0:
            return np.int64(UNKNOWN)
        slowest = max(slowest, took)
    return slowest


@inner
def ticks(s: Any, e: Any, replica: Any, place: Any, whole: Any, uses: Any, rates: Any, k: Any) -> Any:
    """As `Pace.ps`, with the routing that is kept at `place`, which this step has used `uses` times; UNKNOWN where
    something was not asked for.
    """
    if place < 0 or k.uses[place] + uses >= k.every:
        return np.int64(UNKNOWN)
    took = unrouted(s, e, replica, whole, rates, k)
    return took if took < 0 else k.step[place] + took - k.unrouted[place]


@inner
def used(place: Any, k: Any) -> None:
    """A routing was, for a step."""
    k.uses[place] += 1
    k.steps[0] += 1


@inner
def kernels(s: Any, e: Any, replica: Any, place: Any, alone: Any, prompts: Any, rates: Any, k: Any) -> Any:
    """As Hosted's; alone: where the routing of the decoded rows of a step with prompts is kept, NOBODYS where no such
    step is asked for.
    """
    k.counted[1] = 0
    took, decodes = ticks(s, e, replica, place, True, 0, rates, k), np.int64(0)
    if took < 0:
        return took
    if alone != NOBODYS:
        decodes = ticks(s, e, replica, alone, False, 1 if alone == place else 0, rates, k)
        if decodes < 0:
            return decodes
        used(alone, k)
    used(place, k)
    k.counted[0, 0] += k.counted[1, 0]
    k.counted[0, 1] += k.counted[1, 1]
    return with_prompts(took, decodes, e.slow) if prompts else took


@njit
def paced(s: Any, e: Any, rates: Any, k: Any) -> Any:
    """Until the caller is needed -> what for; PRICE: of one step, which a Pace has to be asked for."""
    while True:
        why = advance(s, e)
        if why != PRICE:
            return why
        replica = s.clock[PENDING]
        prompts, decodes, most = kinds(s, e, replica)
        alone = place_of(s, e, replica, False, k) if prompts and decodes and e.slow > 1 else NOBODYS
        place = place_of(s, e, replica, True, k)
        goes_on = True
        while goes_on and s.own[replica, STEPS] + s.own[replica, AHEAD] + SPARE <= s.ends.shape[1]:
            took = kernels(s, e, replica, place, alone, prompts, rates, k)
            if took < 0:
                return PRICE
            goes_on = lasts(s, replica, hosted(e, took, prompts, most))


@njit
def priced(s: Any, e: Any, replica: Any, took: Any) -> None:
    """A step's kernels take so long."""
    prompts, _, most = kinds(s, e, replica)
    lasts(s, replica, hosted(e, took, prompts, most))
