"""One scheduler under a closed loop, compiled: the policies of serving/batcher, Scheduler, Replica and Loop as one
function over columns. tests/serving/test_closed.py holds it equal to them, to the tick.

Prompts share nothing here, so blocks are counts. A call goes on from where its State stands: it comes back when all
requests are answered, or when a price is missing (then the step is put together already, and is priced again).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from moesim.compiled import inner, njit
from moesim.serving.requests import Ints
from moesim.serving.sums import chunk, decoded, whole

DECODE_FIRST, PREFILL_FIRST, WHOLE_PROMPTS = range(3)
NEVER = -1
# numbers of State.at
(NOW, BEGUN, ENDED, PENDING, SENT, SEEN, FREE, SEATS, POLLED, TURN, WAITING, FIRST, STARTED, DECODING, CHUNKS, DECODES,
 LEFT, GONE, STEPS, EVICTIONS, EVICTED, ROOM) = range(22)  # fmt: skip


class Engine(NamedTuple):
    """Of Settings, in numbers: held: share of an answer whose KV is held; ahead: 0 or 1; host: ticks of every step that
    its tables do not hold; slow: of steps with prompts; least: ticks that a step takes which no CUDA graph holds;
    front: ps from the client to the scheduler.
    """

    policy: int
    budget: int
    size: int
    held: float
    ahead: int
    poll: int
    host: int
    slow: float
    least: int
    graph_batch: int
    graph_tokens: int
    front: int


class State(NamedTuple):
    """at int64[ROOM + 1]: numbers by name; the rest int64[requests]: of requests, or rows and queues of them."""

    at: Ints
    prompt: Ints
    output: Ints
    sent: Ints
    first: Ints
    ended: Ints
    cached: Ints
    emitted: Ints
    held: Ints
    admitted: Ints
    line: Ints
    started: Ints
    decoding: Ints
    rows: Ints
    chunked: Ints
    tokens: Ints
    left: Ints
    left_at: Ints

    @classmethod
    def of(cls, prompt: Ints, output: Ints, clients: int, blocks: int, seats: int) -> State:
        """Before the first request; clients: int64[requests] prompts are sent by so many, the first ones at 0."""
        n = len(prompt)
        columns = [np.zeros(n, dtype=np.int64) for _ in range(15)]
        found = cls(np.zeros(ROOM + 1, dtype=np.int64), prompt, output, *columns)
        for column in (found.sent, found.first, found.ended):
            column[:] = NEVER
        at = found.at
        at[SENT], at[FREE], at[SEATS] = min(clients, n), blocks, seats
        found.sent[: at[SENT]] = 0
        at[ENDED] = at[BEGUN] = NEVER
        return found


@inner
def wait(s: Any, request: Any) -> Any:
    """To the end of the line."""
    n = s.prompt.shape[0]
    s.line[(s.at[FIRST] + s.at[WAITING]) % n] = request
    s.at[WAITING] += 1


@inner
def give_back(s: Any, request: Any) -> Any:
    """Its blocks and its seat."""
    s.at[FREE] += s.held[request]
    s.held[request] = 0
    s.at[SEATS] += 1


@inner
def learn(s: Any, e: Any, known: Any, idle: Any) -> Any:
    """As Scheduler._learn."""
    at = s.at
    while at[GONE] < at[LEFT] and s.left_at[at[GONE]] <= known:
        give_back(s, s.left[at[GONE]])
        at[GONE] += 1
    if at[POLLED] < e.poll and (at[DECODING] or at[STARTED]) and not idle:
        return
    while at[SEEN] < at[SENT] and s.sent[at[SEEN]] + e.front <= known:
        wait(s, at[SEEN])
        at[SEEN] += 1
    at[POLLED] = 0


@inner
def remove(column: Any, many: Any, request: Any) -> Any:
    """Take a request out of the first `many` of a column -> how many are left."""
    kept = 0
    for number in range(many):
        if column[number] != request:
            column[kept] = column[number]
            kept += 1
    return kept


@inner
def evict_last(s: Any) -> Any:
    """As Queue.evict_last."""
    at, last = s.at, -1
    for number in range(at[DECODING]):
        if last < 0 or s.admitted[s.decoding[number]] > s.admitted[last]:
            last = s.decoding[number]
    for number in range(at[STARTED]):
        if last < 0 or s.admitted[s.started[number]] > s.admitted[last]:
            last = s.started[number]
    at[DECODING], at[STARTED] = remove(s.decoding, at[DECODING], last), remove(s.started, at[STARTED], last)
    give_back(s, last)
    s.cached[last] = 0
    n = s.prompt.shape[0]
    at[FIRST] = (at[FIRST] - 1) % n
    s.line[at[FIRST]] = last
    at[WAITING] += 1
    at[EVICTIONS] += 1


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
def fill(s: Any, e: Any) -> Any:
    """As the policies of serving/batcher."""
    at = s.at
    at[ROOM], at[EVICTED], at[CHUNKS], at[DECODES] = e.budget, 0, 0, 0
    if e.policy != PREFILL_FIRST:
        add_decodes(s, e)
    if e.policy != WHOLE_PROMPTS:
        add_started(s, e)
    add_waiting(s, e)
    if e.policy == PREFILL_FIRST and not at[CHUNKS]:
        add_decodes(s, e)


@inner
def filled(s: Any, e: Any) -> Any:
    """As Scheduler._filled -> whether there is anything."""
    while True:
        fill(s, e)
        if s.at[CHUNKS] or s.at[DECODES]:
            return True
        if not s.at[STARTED]:
            return False
        evict_last(s)


@inner
def compose(s: Any, e: Any) -> Any:
    """As Scheduler.compose and Replica.begin -> whether a step begins."""
    at = s.at
    now = at[NOW]
    known = at[BEGUN] if e.ahead and at[ENDED] == now else now
    learn(s, e, known, False)
    any_row = filled(s, e)
    if not any_row and known < now:
        learn(s, e, now, True)
        any_row = filled(s, e)
    at[POLLED] += 1
    for number in range(at[DECODES]):
        s.rows[number] = s.cached[s.decoding[number]]
    return any_row


@inner
def ends(s: Any, number: Any) -> Any:
    """Does this chunk end its prompt?"""
    request = s.chunked[number]
    return s.cached[request] + s.tokens[number] == s.prompt[request] + s.emitted[request]


@inner
def ticks(s: Any, e: Any, rest: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """Of the step that is put together."""
    at = s.at
    core = decoded(cores, s.rows, at[DECODES], missing) if at[DECODES] else 0.0
    tokens, emits = at[DECODES], at[DECODES]
    for number in range(at[CHUNKS]):
        request = s.chunked[number]
        core += chunk(prompts, at[CHUNKS], s.tokens[number], s.cached[request], missing)
        tokens += s.tokens[number]
        emits += ends(s, number)
    found = whole(rest, heads, tokens, emits, core, missing) + e.host
    if at[CHUNKS]:
        found = round(found * e.slow)
    graphed = tokens <= (e.graph_tokens if at[CHUNKS] else e.graph_batch)
    return found if graphed else max(found, e.least)


@inner
def emit(s: Any, request: Any, end: Any) -> Any:
    """A token comes out -> whether it was the last."""
    if not s.emitted[request]:
        s.first[request] = end
    s.emitted[request] += 1
    if s.emitted[request] < s.output[request]:
        return False
    at = s.at
    s.ended[request] = end
    s.left[at[LEFT]], s.left_at[at[LEFT]] = request, end
    at[LEFT] += 1
    if at[SENT] < s.prompt.shape[0]:
        s.sent[at[SENT]] = end + 1
        at[SENT] += 1
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
def played(s: Any, e: Any, rest: Any, heads: Any, cores: Any, prompts: Any, missing: Any) -> Any:
    """Until all is answered, True, or a price is missing, False, and missing int64[3] says which."""
    at, n = s.at, s.prompt.shape[0]
    while at[LEFT] < n:
        if not at[PENDING] and not compose(s, e):
            at[NOW] = s.sent[at[SEEN]] + e.front
            continue
        at[PENDING] = 1
        took = ticks(s, e, rest, heads, cores, prompts, missing)
        if missing[0]:
            return False
        at[PENDING] = 0
        at[BEGUN], at[NOW] = at[NOW], at[NOW] + took
        at[ENDED] = at[NOW]
        at[STEPS] += 1
        settle(s, at[NOW])
    return True
