"""One replica under a closed loop, compiled: the policies of serving/batcher, its Schedulers, Replica and Loop as one
function over columns. tests/serving/test_closed.py holds it equal to them, to the tick.

Prompts share nothing here, so blocks are counts. A call goes on from where its State stands: it comes back when all
requests are answered, or when a price is missing (then the step is put together already, and is priced again).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.serving.closed_queue import (
    ANSWERED,
    BEGUN,
    CHUNKS,
    DECODES,
    DECODING,
    ENDED,
    EVICTED,
    FIRST,
    FREE,
    GATHERED,
    LEFT,
    NOW,
    PENDING,
    POLLED,
    ROOM,
    SEATS,
    SEEN,
    SENT,
    STARTED,
    STEPS,
    TURN,
    WAITED,
    WAITING,
    evict_last,
    learn,
    receive,
    remove,
    scheduler,
)
from moesim.serving.sums import chunk, decoded, of_rank, together

DECODE_FIRST, PREFILL_FIRST, WHOLE_PROMPTS = range(3)


@inner
def add_decodes(s: Any, e: Any) -> Any:
    """As Tray.add_decodes."""
    at = s.at
    while at[DECODING]:
        lacking = 0
        for number in range(at[DECODING]):
            request = s.decoding[number]
            lacking += s.cached[request] >= s.held[request] * e.size
        if lacking <= at[FREE]:
            for number in range(at[DECODING]):
                request = s.decoding[number]
                if s.cached[request] >= s.held[request] * e.size:
                    s.held[request] += 1
            at[FREE] -= lacking
            break
        evict_last(s)
        at[EVICTED] = 1
    at[DECODES] = at[DECODING]
    at[ROOM] -= at[DECODES]


@inner
def hold(s: Any, e: Any, request: Any, tokens: Any) -> Any:
    """As Blocks.hold."""
    more = -(-tokens // e.size) - s.held[request]
    if more > s.at[FREE]:
        return False
    if more > 0:
        s.held[request] += more
        s.at[FREE] -= more
    return True


@inner
def add(s: Any, request: Any, tokens: Any) -> Any:
    """A chunk."""
    s.chunked[s.at[CHUNKS]], s.tokens[s.at[CHUNKS]] = request, tokens
    s.at[CHUNKS] += 1
    s.at[ROOM] -= tokens


@inner
def add_started(s: Any, e: Any) -> Any:
    """As Tray.add_started."""
    for number in range(s.at[STARTED]):
        request = s.started[number]
        tokens = min(s.prompt[request] + s.emitted[request] - s.cached[request], s.at[ROOM])
        if tokens > 0 and hold(s, e, request, s.cached[request] + tokens):
            add(s, request, tokens)


@inner
def add_waiting(s: Any, e: Any) -> Any:
    """As Tray.add_waiting."""
    at, n = s.at, s.prompt.shape[0]
    while at[WAITING] and at[SEATS] and at[ROOM] > 0 and not at[EVICTED]:
        request = s.line[at[FIRST]]
        missing = s.prompt[request] + s.emitted[request]
        tokens = min(missing, at[ROOM])
        if tokens < missing and e.policy == WHOLE_PROMPTS:
            return
        needed = s.prompt[request] + int(np.ceil(e.held * s.output[request])) if e.held else 0
        if not hold(s, e, request, max(tokens, needed)):
            return
        at[FIRST] = (at[FIRST] + 1) % n
        at[WAITING] -= 1
        s.started[at[STARTED]] = request
        at[STARTED] += 1
        at[SEATS] -= 1
        at[TURN] += 1
        s.admitted[request] = at[TURN]
        s.cached[request] = 0
        add(s, request, tokens)


@inner
def fill(s: Any, e: Any, held: Any) -> Any:
    """As the policies of serving/batcher."""
    at = s.at
    at[ROOM], at[EVICTED], at[CHUNKS], at[DECODES] = e.budget, 0, 0, 0
    if e.policy != PREFILL_FIRST:
        add_decodes(s, e)
    if e.policy != WHOLE_PROMPTS and not held:
        add_started(s, e)
    if not held:
        add_waiting(s, e)
    if e.policy == PREFILL_FIRST and not at[CHUNKS]:
        add_decodes(s, e)


@inner
def filled(s: Any, e: Any, held: Any) -> Any:
    """As Scheduler._filled -> whether there is anything."""
    while True:
        fill(s, e, held)
        if s.at[CHUNKS] or s.at[DECODES]:
            return True
        if not s.at[STARTED]:
            return False
        evict_last(s)


@inner
def compose(s: Any, e: Any, known: Any, held: Any) -> Any:
    """As Scheduler.compose -> whether it has any rows."""
    at = s.at
    now = s.clock[NOW]
    learn(s, e, known, False)
    any_row = filled(s, e, held)
    if not any_row and known < now:
        learn(s, e, now, True)
        any_row = filled(s, e, held)
    at[POLLED] += 1
    for number in range(at[DECODES]):
        s.rows[number] = s.cached[s.decoding[number]]
    return any_row


@inner
def holds(s: Any, e: Any, known: Any) -> Any:
    """As Replica._holds, of all schedulers."""
    many, clock = s.at.shape[0], s.clock
    if many == 1 or not e.balance:
        return False
    having, decoding = 0, 0
    for r in range(many):
        learn(scheduler(s, r), e, known, False)
        at = s.at[r]
        having += at[STARTED] > 0 or (at[WAITING] > 0 and at[SEATS] > 0)
        decoding += at[DECODING] > 0
    if not having or decoding < many:
        clock[WAITED] = clock[GATHERED] = 0
        return False
    if having < many:
        clock[WAITED] = (clock[WAITED] + 1) % e.balance
        return clock[WAITED] > 0
    clock[WAITED], clock[GATHERED] = 0, (clock[GATHERED] + 1) % (e.gather + 1)
    return clock[GATHERED] > 0


@inner
def begin(s: Any, e: Any) -> Any:
    """As Replica.begin, of all schedulers -> whether a step begins."""
    clock, begins = s.clock, False
    known = clock[BEGUN] if e.ahead and clock[ENDED] == clock[NOW] else clock[NOW]
    held = holds(s, e, known)
    for r in range(s.at.shape[0]):
        begins |= compose(scheduler(s, r), e, known, held)
    return begins


@inner
def ends(s: Any, number: Any) -> Any:
    """Does this chunk end its prompt?"""
    request = s.chunked[number]
    return s.cached[request] + s.tokens[number] == s.prompt[request] + s.emitted[request]


@inner
def rank(s: Any, own: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """What a scheduler brings to the step that is put together: ps that its ranks take beside the others, tokens."""
    at = s.at
    core = decoded(cores, s.rows, at[DECODES], missing) if at[DECODES] else 0.0
    tokens, emits = at[DECODES], at[DECODES]
    for number in range(at[CHUNKS]):
        request = s.chunked[number]
        core += chunk(prompts, at[CHUNKS], s.tokens[number], s.cached[request], missing)
        tokens += s.tokens[number]
        emits += ends(s, number)
    return (of_rank(own, heads, tokens, emits, core, missing) if tokens else 0.0), tokens


@inner
def ticks(s: Any, e: Any, rest: Any, own: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """Of the step that all schedulers have put together."""
    slowest, total, most, chunks = 0.0, 0, 0, 0
    for r in range(s.at.shape[0]):
        took, tokens = rank(scheduler(s, r), own, heads, cores, prompts, missing)
        slowest, most = max(slowest, took), max(most, tokens)
        total += tokens
        chunks += s.at[r, CHUNKS]
    found = together(rest, total, slowest, missing) + e.host
    if chunks:
        found = round(found * e.slow)
    graphed = most <= (e.graph_tokens if chunks else e.graph_batch)
    return found if graphed else max(found, e.least)


@inner
def emit(s: Any, request: Any, end: Any) -> Any:
    """A token comes out -> whether it was the last."""
    if not s.emitted[request]:
        s.first[request] = end
    s.emitted[request] += 1
    if s.emitted[request] < s.output[request]:
        return False
    at, clock = s.at, s.clock
    s.ended[request] = end
    s.left[at[LEFT]], s.left_at[at[LEFT]] = request, end
    at[LEFT] += 1
    clock[ANSWERED] += 1
    if clock[SENT] < s.prompt.shape[0]:
        s.sent[clock[SENT]] = end + 1
        clock[SENT] += 1
    return True


@inner
def settle(s: Any, end: Any) -> Any:
    """As Scheduler.settle, and the clients' next requests."""
    at, kept = s.at, 0
    if at[DECODES]:
        for number in range(at[DECODING]):
            request = s.decoding[number]
            s.cached[request] += 1
            if not emit(s, request, end):
                s.decoding[kept] = request
                kept += 1
        at[DECODING] = kept
    for number in range(at[CHUNKS]):
        request = s.chunked[number]
        last = ends(s, number)
        s.cached[request] += s.tokens[number]
        if not last:
            continue
        at[STARTED] = remove(s.started, at[STARTED], request)
        if not emit(s, request, end):
            s.decoding[at[DECODING]] = request
            at[DECODING] += 1


@njit
def played(s: Any, e: Any, rest: Any, own: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """Of all schedulers: until all is answered, True, or a price is missing, False, and missing int64[3] says which."""
    clock = s.clock
    while clock[ANSWERED] < s.prompt.shape[0]:
        if not clock[PENDING]:
            receive(s, e)
            if not begin(s, e):
                clock[NOW] = s.sent[clock[SEEN]] + e.front
                continue
        clock[PENDING] = 1
        took = ticks(s, e, rest, own, heads, cores, prompts, missing)
        if missing[0]:
            return False
        clock[PENDING] = 0
        clock[BEGUN], clock[NOW] = clock[NOW], clock[NOW] + took
        clock[ENDED] = clock[NOW]
        clock[STEPS] += 1
        receive(s, e)
        for r in range(s.at.shape[0]):
            settle(scheduler(s, r), clock[NOW])
    return True
