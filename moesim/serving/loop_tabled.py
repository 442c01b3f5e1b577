"""A compiled loop whose steps take what tables say (serving/sums.py)."""

from __future__ import annotations

from typing import Any

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
from moesim.serving.sums import chunk, decoded, of_rank, together


@inner
def rank(s: Any, r: Any, ahead: Any, own: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """What a scheduler brings to a step, so many after those that it has learned of: ps that its ranks take beside the
    others, ps without its prompts, tokens.
    """
    at = s.at[r]
    for number in range(at[DECODES]):
        s.scratch[number] = s.of[s.decoding[r, number], CACHED] + ahead
    core = decoded(cores, s.scratch, at[DECODES], missing) if at[DECODES] else 0.0
    tokens, emits = at[DECODES], at[DECODES]
    alone = of_rank(own, heads, tokens, emits, core, missing) if tokens else 0.0
    if not at[CHUNKS]:
        return alone, alone, tokens
    for number in range(at[CHUNKS]):
        of, new = s.of[s.chunked[r, number]], s.tokens[r, number]
        core += chunk(prompts, at[CHUNKS], new, of[CACHED], missing)
        tokens += new
        emits += of[CACHED] + new == of[PROMPT] + of[EMITTED]
    return of_rank(own, heads, tokens, emits, core, missing), alone, tokens


@inner
def ticks(
    s: Any, e: Any, replica: Any, rest: Any, own: Any, heads: Any, cores: Any, prompts: Any, missing: Any
) -> Any:  # fmt: skip
    """Of the step that a replica has put together."""
    slowest, total, most, chunks, without, decodes = 0.0, 0, 0, 0, 0.0, 0
    steps = s.own[replica, STEPS] + s.own[replica, AHEAD]
    for r in range(replica * e.many, (replica + 1) * e.many):
        took, alone, tokens = rank(s, r, steps - s.at[r, SINCE], own, heads, cores, prompts, missing)
        slowest, without, most = max(slowest, took), max(without, alone), max(most, tokens)
        total += tokens
        chunks += s.at[r, CHUNKS]
        decodes += s.at[r, DECODES]
    kernels = together(rest, total, slowest, missing) + e.host
    if chunks and e.slow > 1:
        kernels = with_prompts(kernels, together(rest, decodes, without, missing) + e.host if decodes else 0, e.slow)
    return hosted(e, kernels, chunks > 0, most)


@njit
def tabled(s: Any, e: Any, rest: Any, own: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """Until the caller is needed -> what for; PRICE: one is missing, missing int64[3] says which."""
    while True:
        why = advance(s, e)
        if why != PRICE:
            return why
        replica = s.clock[PENDING]
        goes_on = True
        while goes_on and s.own[replica, STEPS] + s.own[replica, AHEAD] + SPARE <= s.ends.shape[1]:
            took = ticks(s, e, replica, rest, own, heads, cores, prompts, missing)
            if missing[0]:
                return PRICE
            goes_on = lasts(s, replica, took)
