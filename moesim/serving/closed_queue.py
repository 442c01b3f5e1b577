"""The state of a compiled closed loop, and its queues: who comes, waits, holds blocks, is evicted, leaves.

As serving/kv.py and the Queue of serving/scheduler.py, in columns. Only serving/closed_kernel.py calls these.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from moesim.compiled import inlined, inner
from moesim.serving.requests import Ints

NEVER = -1
NOW, BEGUN, ENDED, PENDING, SENT, SEEN, ANSWERED, STEPS, WAITED, GATHERED, CHOSEN = range(11)  # numbers of State.clock
# numbers of State.at
(FREE, SEATS, POLLED, TURN, WAITING, FIRST, STARTED, DECODING, CHUNKS, DECODES, LEFT, GONE, EVICTIONS, EVICTED, CAME,
 TAKEN, ROOM) = range(17)  # fmt: skip


class Engine(NamedTuple):
    """Of Settings, in numbers: held: share of an answer whose KV is held; ahead: 0 or 1; balance, gather: steps that
    prompts wait for those of other schedulers, and for more; host: ticks of every step that its tables do not hold;
    slow: of steps with prompts; least: ticks that a step takes which no CUDA graph holds; front: ps from the client to
    the scheduler.
    """

    policy: int
    budget: int
    size: int
    held: float
    ahead: int
    poll: int
    balance: int
    gather: int
    host: int
    slow: float
    least: int
    graph_batch: int
    graph_tokens: int
    front: int


class State(NamedTuple):
    """clock int64[CHOSEN + 1], at int64[schedulers, ROOM + 1]: numbers by name, of all and of each scheduler; prompt ..
    admitted int64[requests]; line .. left_at int64[schedulers, requests]: rows and queues of them. What functions below
    take is `of` one scheduler, but where they say otherwise.
    """

    clock: Ints
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
    inbox: Ints
    line: Ints
    started: Ints
    decoding: Ints
    rows: Ints
    chunked: Ints
    tokens: Ints
    left: Ints
    left_at: Ints

    @classmethod
    def of(cls, prompt: Ints, output: Ints, clients: int, many: int, blocks: int, seats: int) -> State:
        """Before the first request; clients: int64[requests] prompts are sent by so many, the first ones at 0; blocks
        and seats of each of `many` schedulers.
        """
        n = len(prompt)
        columns = [np.zeros(n, dtype=np.int64) for _ in range(7)]
        queues = [np.zeros((many, n), dtype=np.int64) for _ in range(9)]
        clock, at = np.zeros(CHOSEN + 1, dtype=np.int64), np.zeros((many, ROOM + 1), dtype=np.int64)
        found = cls(clock, at, prompt, output, *columns, *queues)
        for column in (found.sent, found.first, found.ended):
            column[:] = NEVER
        at[:, FREE], at[:, SEATS] = blocks, seats
        clock[SENT] = min(clients, n)
        found.sent[: clock[SENT]] = 0
        clock[ENDED] = clock[BEGUN] = NEVER
        return found


@inlined
def scheduler(s: Any, r: Any) -> Any:
    """One of all: views, which `inner` functions may make but not return."""
    return State(
        s.clock, s.at[r], s.prompt, s.output, s.sent, s.first, s.ended, s.cached, s.emitted, s.held, s.admitted,
        s.inbox[r], s.line[r], s.started[r], s.decoding[r], s.rows[r], s.chunked[r], s.tokens[r], s.left[r],
        s.left_at[r],
    )  # fmt: skip


@inner
def receive(s: Any, e: Any) -> Any:
    """As Replica.receive, of all schedulers: whoever has come by now goes to the one with the least to do, in turn."""
    clock, many = s.clock, s.at.shape[0]
    while clock[SEEN] < clock[SENT] and s.sent[clock[SEEN]] + e.front <= clock[NOW]:
        best, least = 0, np.int64(1 << 60)
        for place in range(many):
            r = (clock[CHOSEN] + place) % many
            at = s.at[r]
            load = at[CAME] - at[TAKEN] + at[WAITING] + at[STARTED] + at[DECODING]
            if load < least:
                best, least = r, load
        s.inbox[best, s.at[best, CAME]] = clock[SEEN]
        s.at[best, CAME] += 1
        clock[SEEN] += 1
        clock[CHOSEN] += 1


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
    while at[TAKEN] < at[CAME] and s.sent[s.inbox[at[TAKEN]]] + e.front <= known:
        wait(s, s.inbox[at[TAKEN]])
        at[TAKEN] += 1
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
