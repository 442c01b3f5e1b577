"""The state of a compiled loop, and its queues: who comes, waits, holds blocks, is evicted, leaves.

As serving/kv.py and the Queue of serving/scheduler.py, in columns. Only serving/loop_kernel.py calls these.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from moesim.compiled import inner
from moesim.serving.cadence import Whole
from moesim.serving.loop_blocks import FOUND, FREE, OFFERED, REUSED, Int32s, Prefixed, return_blocks
from moesim.serving.requests import Ints

Column = TypeVar("Column", Ints, Int32s, Whole)
NEVER = -1
FAR = 1 << 62  # ps: nothing happens any more
UNDECIDED = -1  # in CHOICE: which replica the next request goes to was not asked yet
REFUSED = -2  # as its REPLICA: a request can never run
WAITING_STATE, RUNNING_STATE, FINISHED_STATE = 1, 2, 3  # as in book.State
# numbers of State.clock
NOW, SENT, SEEN, PENDING, CHOICE, GAPS = range(6)
# numbers of a row of State.own, one a replica
BEGUN, ENDED, GOING, TOUCHED, STEPS, BUSY, WAITED, GATHERED, CHOSEN, LOAD, HORIZON, MOST, AHEAD, SAMPLES = range(14)
# numbers of a row of State.at, one a scheduler
(SEATS, POLLED, TURN, INBOX, IN_FIRST, IN_LAST, WAITING, FIRST, LAST, STARTED, DECODING, CHUNKS, DECODES, LEFT,
 EVICTED, ROOM, NEW, PUT, SINCE, UNTIL) = range(20)  # fmt: skip
# numbers of a row of State.of, one a request, as the columns of a Book; NEXT: who stands behind it; TICKET: which of
# several equals gets it, see balancer/least_outstanding.py
(PROMPT, OUTPUT, SENT_AT, QUEUED_AT, STARTED_AT, FIRST_AT, LAST_AT, ENDED_AT, EVICTED_AT, CACHED, EMITTED,
 ADMITTED, LOST, PREEMPTED, STATE, REPLICA, SCHEDULER, NEXT, TICKET) = range(19)  # fmt: skip
SAMPLE = 3  # numbers of a Sample, beside when it was taken
ASKED_FOR, LEAST_OUTSTANDING, ROUND_ROBIN = range(3)  # balancers
FEWEST_STEPS, FEWEST_GAPS = 1 << 11, 1 << 12
WIDER = 4  # times the room: while it is widened both are there, what nobody has written to is not
SPARE = 2  # a step, or a sample, that is written down next, and one more


class Engine(NamedTuple):
    """Of Settings, in numbers: many: schedulers of a replica; blocks: of each; held: share of an answer whose KV is
    held; ahead: 0 or 1; balance, gather: steps that prompts wait for those of other schedulers, and for more; host:
    ticks of every step that its clock does not hold; slow: of steps with prompts; least: ticks that a step takes which
    no CUDA graph holds; front: ps from the client to the scheduler; closed: 1 where clients wait for their answers;
    cache: 1 where blocks of shared prefixes are found again; rule: who sends requests to replicas, or ASKED_FOR.
    """

    many: int
    blocks: int
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
    closed: int
    cache: int
    rule: int


class State(NamedTuple):
    """clock int64[7], own int64[replicas, 14], at int64[schedulers, 20], of int64[requests, 19]: numbers by name, of
    all, of each replica, scheduler (those of a replica side by side) and request; kept int64[schedulers, 6], has
    int64[requests, 4], prefixed: blocks, see serving/loop_blocks.py; started .. left_at int64[schedulers,
    seats]: requests and their tokens or ps, ordered as decoding, by tokens in the cache; ends int64[replicas, room],
    beats int32[replicas, room]: ps of the ends of steps and tokens that kept their beat, as in a Cadence; sampled
    int64[replicas, room], samples int32[replicas, room, 3] (int64 where blocks are too many): as in a History; gaps
    int64[room, 2]: ps between tokens that kept no beat, and of the later one; scratch int64[seats].
    """

    clock: Ints
    own: Ints
    at: Ints
    of: Ints
    kept: Ints
    has: Ints
    prefixed: Prefixed
    started: Ints
    decoding: Ints
    ordered: Ints
    chunked: Ints
    tokens: Ints
    left: Ints
    left_at: Ints
    ends: Ints
    beats: Int32s
    sampled: Ints
    samples: Whole
    gaps: Ints
    scratch: Ints

    @classmethod
    def of_requests(
        cls, prompt: Ints, output: Ints, replicas: int, many: int, blocks: int, seats: int, size: int = 1,
        prefixes: object = None,
    ) -> State:  # fmt: skip
        """Before the first of int64[n] requests; blocks of `size` tokens and seats of each of `many` schedulers of each
        replica.
        """
        n, all_of = len(prompt), replicas * many
        most = min(seats, n)

        def empty(*shape: int) -> Ints:
            return np.zeros(shape, dtype=np.int64)

        started, decoding, ordered, chunked, tokens, left, left_at = (empty(all_of, most) for _ in range(7))
        clock, own, at = empty(GAPS + 1), empty(replicas, SAMPLES + 1), empty(all_of, UNTIL + 1)
        samples: Whole = np.zeros((replicas, FEWEST_STEPS, SAMPLE), np.int32 if many * blocks < 1 << 31 else np.int64)
        of = empty(n, TICKET + 1)
        of[:, PROMPT], of[:, OUTPUT] = prompt, output
        of[:, SENT_AT : EVICTED_AT + 1] = of[:, REPLICA] = of[:, SCHEDULER] = NEVER
        at[:, SEATS] = seats
        kept, has = empty(all_of, FOUND + 1), empty(n, REUSED + 1)
        prefixed, has[:, OFFERED] = Prefixed.of(prefixes, all_of, blocks, size)
        kept[:, FREE] = blocks
        own[:, BEGUN] = own[:, ENDED] = clock[PENDING] = NEVER
        clock[CHOICE] = UNDECIDED
        return cls(
            clock, own, at, of, kept, has, prefixed, started, decoding, ordered, chunked, tokens, left, left_at,
            ends=empty(replicas, FEWEST_STEPS), beats=np.zeros((replicas, FEWEST_STEPS), dtype=np.int32),
            sampled=empty(replicas, FEWEST_STEPS), samples=samples,
            gaps=empty(max(FEWEST_GAPS, 2 * many * most), 2), scratch=empty(most),
        )  # fmt: skip

    def roomier(self) -> State:
        """With more room where little is left for what is written down step by step."""
        found = self.with_room(int((self.own[:, STEPS] + self.own[:, AHEAD]).max()))
        most = int(self.own[:, SAMPLES].max())
        sampled, samples = _roomier(self.sampled, most, axis=1), _roomier(self.samples, most, axis=1)
        gaps = _roomier(self.gaps, int(self.clock[GAPS]) + self.most_rows, axis=0)
        return found._replace(sampled=sampled, samples=samples, gaps=gaps)

    def with_room(self, steps: int) -> State:
        """For so many steps of each replica."""
        return self._replace(ends=_roomier(self.ends, steps, axis=1), beats=_roomier(self.beats, steps, axis=1))

    @property
    def most_rows(self) -> int:
        """Of a step."""
        most: int = self.decoding.shape[1]
        return most * (len(self.at) // len(self.own))


def _roomier(column: Column, used: int, axis: int) -> Column:
    """WIDER times the room as long as less than a few would be left."""
    while used + SPARE > column.shape[axis]:
        shape = [WIDER * size if number == axis else size for number, size in enumerate(column.shape)]
        wider: Column = np.zeros(shape, dtype=column.dtype)
        wider[tuple(slice(size) for size in column.shape)] = column
        column = wider
    return column


@inner
def come(s: Any, e: Any, request: Any, replica: Any) -> Any:
    """As Loop._come and Replica.receive: to the scheduler with the least to do, in turn."""
    own = s.own[replica]
    best, least = 0, np.int64(FAR)
    for place in range(e.many):
        r = replica * e.many + (own[CHOSEN] + place) % e.many
        at = s.at[r]
        load = at[INBOX] + at[WAITING] + at[STARTED] + at[DECODING]
        if load < least:
            best, least = r, load
    at, of = s.at[best], s.of[request]
    of[STATE], of[REPLICA], of[SCHEDULER] = WAITING_STATE, replica, best - replica * e.many
    if at[INBOX]:
        s.of[at[IN_LAST], NEXT] = request
    else:
        at[IN_FIRST] = request
    at[IN_LAST] = request
    at[INBOX] += 1
    own[CHOSEN] += 1
    own[LOAD] += 1
    if not own[GOING]:
        own[TOUCHED] = 1


@inner
def wait(s: Any, r: Any, request: Any) -> Any:
    """To the end of the line."""
    at = s.at[r]
    if at[WAITING]:
        s.of[at[LAST], NEXT] = request
    else:
        at[FIRST] = request
    at[LAST] = request
    at[WAITING] += 1


@inner
def learn(s: Any, e: Any, r: Any, known: Any, idle: Any) -> Any:
    """As Scheduler._learn."""
    at = s.at[r]
    gone = 0
    while gone < at[LEFT] and s.left_at[r, gone] <= known:
        return_blocks(s, e, r, s.left[r, gone], s.of[s.left[r, gone], CACHED])
        at[SEATS] += 1
        gone += 1
    if gone:
        at[LEFT] -= gone
        for number in range(at[LEFT]):
            s.left[r, number], s.left_at[r, number] = s.left[r, number + gone], s.left_at[r, number + gone]
    if at[POLLED] < e.poll and (at[DECODING] or at[STARTED]) and not idle:
        return
    while at[INBOX] and s.of[at[IN_FIRST], SENT_AT] + e.front <= known:
        request = at[IN_FIRST]
        at[IN_FIRST] = s.of[request, NEXT]
        at[INBOX] -= 1
        s.of[request, QUEUED_AT] = s.of[request, SENT_AT] + e.front
        wait(s, r, request)
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
def decodes_now(s: Any, r: Any, request: Any) -> Any:
    """Its answer has begun: it stands last in line, and among the others by what it has in the cache."""
    at = s.at[r]
    place, tokens = at[DECODING], s.of[request, CACHED]
    s.decoding[r, place] = request
    while place > 0 and s.of[s.ordered[r, place - 1], CACHED] > tokens:
        s.ordered[r, place] = s.ordered[r, place - 1]
        place -= 1
    s.ordered[r, place] = request
    at[DECODING] += 1


@inner
def evict_last(s: Any, e: Any, r: Any) -> Any:
    """As Queue.evict_last."""
    at, last = s.at[r], -1
    for number in range(at[DECODING]):
        if last < 0 or s.of[s.decoding[r, number], ADMITTED] > s.of[last, ADMITTED]:
            last = s.decoding[r, number]
    for number in range(at[STARTED]):
        if last < 0 or s.of[s.started[r, number], ADMITTED] > s.of[last, ADMITTED]:
            last = s.started[r, number]
    remove(s.ordered[r], at[DECODING], last)
    at[DECODING], at[STARTED] = remove(s.decoding[r], at[DECODING], last), remove(s.started[r], at[STARTED], last)
    return_blocks(s, e, r, last, s.of[last, CACHED])
    at[SEATS] += 1
    of = s.of[last]
    of[CACHED], of[EVICTED_AT], of[STATE], of[NEXT] = 0, s.clock[NOW], WAITING_STATE, at[FIRST]
    of[PREEMPTED] += 1
    if not at[WAITING]:
        at[LAST] = last
    at[FIRST] = last
    at[WAITING] += 1
