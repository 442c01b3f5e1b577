"""A loop, compiled: the policies of serving/batcher, Schedulers, Replicas and the Loop as one function over columns.
tests/serving/test_compiled_loop.py and test_closed.py hold it equal to them, to the tick.

What is left to its caller: which replica a request goes to, and how
long steps take. A call goes on from where its State stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.compiled import inner, njit
from moesim.serving.loop_blocks import ASKED, FOUND, FREE, HELD, REUSED, admit, hold, known, offer, take
from moesim.serving.loop_queue import (
    ADMITTED,
    AHEAD,
    BEGUN,
    BUSY,
    CACHED,
    CHOICE,
    CHUNKS,
    DECODES,
    DECODING,
    EMITTED,
    ENDED,
    ENDED_AT,
    EVICTED,
    EVICTED_AT,
    FAR,
    FINISHED_STATE,
    FIRST,
    FIRST_AT,
    GAPS,
    GATHERED,
    GOING,
    HORIZON,
    INBOX,
    LAST_AT,
    LEAST_OUTSTANDING,
    LEFT,
    LOAD,
    LOST,
    MOST,
    NEVER,
    NEW,
    NEXT,
    NOW,
    OUTPUT,
    PENDING,
    POLLED,
    PROMPT,
    PUT,
    REFUSED,
    REPLICA,
    ROOM,
    ROUND_ROBIN,
    RUNNING_STATE,
    SAMPLES,
    SEATS,
    SEEN,
    SENT,
    SENT_AT,
    SINCE,
    SPARE,
    STARTED,
    STARTED_AT,
    STATE,
    STEPS,
    TICKET,
    TOUCHED,
    TURN,
    UNDECIDED,
    UNTIL,
    WAITED,
    WAITING,
    come,
    decodes_now,
    evict_last,
    learn,
    remove,
)
from moesim.step import Phase

DECODE_FIRST, PREFILL_FIRST, WHOLE_PROMPTS = range(3)
DONE, CHOOSE, PRICE, FULL = range(4)  # why a call comes back: all is over; who serves the next; a step begins; no room
UNLIMITED = 1 << 40
PREFILL, DUMMY = int(Phase.PREFILL), int(Phase.DUMMY)


@inner
def add_decodes(s: Any, e: Any, r: Any) -> Any:
    """As Tray.add_decodes."""
    at = s.at[r]
    while at[DECODING]:
        lacking = 0
        for number in range(at[DECODING]):
            request = s.decoding[r, number]
            lacking += s.of[request, CACHED] >= s.has[request, HELD] * e.size
        if lacking <= s.kept[r, FREE]:
            for number in range(at[DECODING] if lacking else 0):
                request = s.decoding[r, number]
                s.has[request, HELD] += s.of[request, CACHED] >= s.has[request, HELD] * e.size
            take(s, r, lacking)
            break
        evict_last(s, e, r)
        at[EVICTED] = 1
    at[DECODES] = at[DECODING]
    at[ROOM] -= at[DECODES]


@inner
def add(s: Any, r: Any, request: Any, tokens: Any) -> Any:
    """A chunk."""
    at = s.at[r]
    s.chunked[r, at[CHUNKS]], s.tokens[r, at[CHUNKS]] = request, tokens
    at[CHUNKS] += 1
    at[ROOM] -= tokens


@inner
def add_started(s: Any, e: Any, r: Any) -> Any:
    """As Tray.add_started."""
    for number in range(s.at[r, STARTED]):
        request = s.started[r, number]
        of = s.of[request]
        tokens = min(of[PROMPT] + of[EMITTED] - of[CACHED], s.at[r, ROOM])
        if tokens > 0 and hold(s, e, r, request, of[CACHED] + tokens):
            add(s, r, request, tokens)


@inner
def reuse(s: Any, e: Any, r: Any, request: Any, tokens: Any) -> Any:
    """As Queue.reuse."""
    s.of[request, CACHED] = tokens
    if e.cache:
        s.kept[r, ASKED] += s.of[request, PROMPT]
        s.kept[r, FOUND] += tokens
    if s.of[request, STARTED_AT] == NEVER:
        s.has[request, REUSED] = tokens


@inner
def add_waiting(s: Any, e: Any, r: Any) -> Any:
    """As Tray.add_waiting."""
    at = s.at[r]
    while at[WAITING] and at[SEATS] and at[ROOM] > 0 and not at[EVICTED]:
        request = at[FIRST]
        of = s.of[request]
        shared, idle = known(s, e, r, request, (of[PROMPT] - 1) // e.size) if e.cache else (0, 0)
        found = shared * e.size
        missing = of[PROMPT] + of[EMITTED] - of[CACHED] - found
        tokens = min(missing, at[ROOM])
        if tokens < missing and e.policy == WHOLE_PROMPTS:
            return
        needed = of[PROMPT] + int(np.ceil(e.held * of[OUTPUT])) if e.held else 0
        if not admit(s, e, r, request, shared, idle, max(found + tokens, needed)):
            return
        reuse(s, e, r, request, found)
        at[FIRST] = of[NEXT]
        at[WAITING] -= 1
        s.started[r, at[STARTED]] = request
        at[STARTED] += 1
        at[SEATS] -= 1
        at[TURN] += 1
        of[ADMITTED] = at[TURN]
        add(s, r, request, tokens)


@inner
def fill(s: Any, e: Any, r: Any, held: Any) -> Any:
    """As the policies of serving/batcher."""
    at = s.at[r]
    at[ROOM], at[EVICTED], at[CHUNKS], at[DECODES] = e.budget, 0, 0, 0
    if e.policy != PREFILL_FIRST:
        add_decodes(s, e, r)
    if e.policy != WHOLE_PROMPTS and not held:
        add_started(s, e, r)
    if not held:
        add_waiting(s, e, r)
    if e.policy == PREFILL_FIRST and not at[CHUNKS]:
        add_decodes(s, e, r)


@inner
def filled(s: Any, e: Any, r: Any, held: Any) -> Any:
    """As Scheduler._filled -> whether there is anything."""
    while True:
        fill(s, e, r, held)
        if s.at[r, CHUNKS] or s.at[r, DECODES]:
            return True
        if held or not s.at[r, STARTED]:
            return False
        evict_last(s, e, r)


@inner
def start(s: Any, r: Any) -> Any:
    """As Scheduler._start."""
    now = s.clock[NOW]
    for number in range(s.at[r, CHUNKS]):
        of = s.of[s.chunked[r, number]]
        if of[STARTED_AT] == NEVER:
            of[STARTED_AT] = now
        if of[EVICTED_AT] != NEVER:
            if of[FIRST_AT] != NEVER:
                of[LOST] += now - of[EVICTED_AT]
            of[EVICTED_AT] = NEVER
        of[STATE] = RUNNING_STATE


@inner
def stretch(s: Any, e: Any, r: Any) -> Any:
    """As Scheduler.stretch."""
    at = s.at[r]
    load = at[INBOX] + at[WAITING] + at[STARTED] + at[DECODING]
    if not (at[DECODES] or load or at[LEFT]):
        return UNLIMITED
    coming = at[INBOX] > 0 or (at[WAITING] > 0 and at[SEATS] > 0)
    if at[CHUNKS] or at[STARTED] or at[LEFT] or coming or not at[DECODES]:
        return 1
    steps = s.kept[r, FREE] // at[DECODES] * e.size + 1
    for number in range(at[DECODES]):
        of = s.of[s.decoding[r, number]]
        steps = min(steps, of[OUTPUT] - of[EMITTED])
    return steps


@inner
def compose(s: Any, e: Any, replica: Any, r: Any, known: Any, held: Any) -> Any:
    """As Scheduler.compose, and Replica._put."""
    at = s.at[r]
    learn(s, e, r, known, False)
    if not filled(s, e, r, held) and known < s.clock[NOW]:
        learn(s, e, r, s.clock[NOW], True)
        filled(s, e, r, held)
    at[POLLED] += 1
    start(s, r)
    steps = s.own[replica, STEPS]
    at[PUT], at[SINCE], at[UNTIL] = 1, steps, steps + stretch(s, e, r)


@inner
def holds(s: Any, e: Any, replica: Any, known: Any) -> Any:
    """As Replica._holds."""
    own = s.own[replica]
    if e.many == 1 or not e.balance:
        return False
    having, decoding = 0, 0
    for r in range(replica * e.many, (replica + 1) * e.many):
        at = s.at[r]
        if at[NEW]:
            learn(s, e, r, known, False)
            having += at[STARTED] > 0 or (at[WAITING] > 0 and at[SEATS] > 0)
        decoding += at[DECODING] > 0
    if not having or decoding < e.many:
        own[WAITED] = own[GATHERED] = 0
        return False
    if having < e.many:
        own[WAITED] = (own[WAITED] + 1) % e.balance
        return own[WAITED] > 0
    own[WAITED], own[GATHERED] = 0, (own[GATHERED] + 1) % (e.gather + 1)
    return own[GATHERED] > 0


@inner
def gap(s: Any, replica: Any, step: Any, of: Any) -> Any:
    """As Book._gap of one request: the token at the end of a step comes after its last one."""
    before = s.ends[replica, step - 1] if step else NEVER
    if of[LAST_AT] == before:
        s.beats[replica, step] += 1
        return
    end, number = s.ends[replica, step], s.clock[GAPS]
    s.gaps[number, 0], s.gaps[number, 1] = end - of[LAST_AT], end
    s.clock[GAPS] += 1


@inner
def leave(s: Any, e: Any, r: Any, request: Any, end: Any) -> Any:
    """It is answered."""
    at, of, clock = s.at[r], s.of[request], s.clock
    of[STATE], of[ENDED_AT] = FINISHED_STATE, end
    s.left[r, at[LEFT]], s.left_at[r, at[LEFT]] = request, end
    at[LEFT] += 1
    if e.closed and clock[SENT] < s.of.shape[0]:
        s.of[clock[SENT], SENT_AT] = clock[NOW] + 1
        clock[SENT] += 1


@inner
def keep(s: Any, r: Any) -> Any:
    """Whose answers have ended decode no more."""
    at, kept, still = s.at[r], 0, 0
    for number in range(at[DECODING]):
        request, other = s.decoding[r, number], s.ordered[r, number]
        if s.of[request, EMITTED] < s.of[request, OUTPUT]:
            s.decoding[r, kept] = request
            kept += 1
        if s.of[other, EMITTED] < s.of[other, OUTPUT]:
            s.ordered[r, still] = other
            still += 1
    at[DECODING] = kept


@inner
def settle(s: Any, e: Any, replica: Any, r: Any) -> Any:
    """As Scheduler.settle, after one step -> answers that have ended."""
    at, done, step = s.at[r], 0, s.at[r, SINCE]
    end = s.ends[replica, step]
    for number in range(at[DECODES]):
        of = s.of[s.decoding[r, number]]
        gap(s, replica, step, of)
        of[CACHED] += 1
        of[EMITTED] += 1
        of[LAST_AT] = end
        if of[EMITTED] == of[OUTPUT]:
            leave(s, e, r, s.decoding[r, number], end)
            done += 1
    for number in range(at[CHUNKS]):
        request = s.chunked[r, number]
        of = s.of[request]
        of[CACHED] += s.tokens[r, number]
        if e.cache:
            offer(s, e, r, request, of[CACHED])
        if of[CACHED] < of[PROMPT] + of[EMITTED]:
            continue
        at[STARTED] = remove(s.started[r], at[STARTED], request)
        if of[EMITTED]:
            gap(s, replica, step, of)
        else:
            of[FIRST_AT] = end
        of[EMITTED] += 1
        of[LAST_AT] = end
        decodes_now(s, r, request)
        if of[EMITTED] == of[OUTPUT]:
            leave(s, e, r, request, end)
            done += 1
    if done:
        keep(s, r)
    return done


@inner
def settle_many(s: Any, e: Any, replica: Any, r: Any) -> Any:
    """As Scheduler.settle_many, after several steps of decodes alone -> answers that have ended."""
    at, first, last = s.at[r], s.at[r, SINCE], s.own[replica, STEPS]
    if not at[DECODES]:
        return 0
    end, done = s.ends[replica, last - 1], 0
    for number in range(at[DECODES]):
        request = s.decoding[r, number]
        of = s.of[request]
        gap(s, replica, first, of)
        of[CACHED] += last - first
        of[EMITTED] += last - first
        of[LAST_AT] = end
        hold(s, e, r, request, of[CACHED])
        if of[EMITTED] == of[OUTPUT]:
            leave(s, e, r, request, end)
            done += 1
    for step in range(first + 1, last):
        s.beats[replica, step] += at[DECODES]
    at[POLLED] = (at[POLLED] + last - first - 2) % e.poll + 1
    if done:
        keep(s, r)
    return done


@inner
def catch_up(s: Any, e: Any, replica: Any, r: Any) -> Any:
    """As Replica._catch_up."""
    if s.at[r, PUT] and s.at[r, SINCE] < s.own[replica, STEPS]:
        settle_many(s, e, replica, r)


@inner
def compose_all(s: Any, e: Any, replica: Any, known: Any, held: Any) -> Any:
    """As Replica._compose -> rows of all schedulers, and until which step they go on."""
    rows, until = 0, np.int64(FAR)
    for r in range(replica * e.many, (replica + 1) * e.many):
        at = s.at[r]
        if at[NEW]:
            compose(s, e, replica, r, known, held)
        rows += at[DECODES] + at[CHUNKS]
        until = min(until, at[UNTIL])
    return rows, until


@inner
def begin(s: Any, e: Any, replica: Any) -> Any:
    """As Replica.begin -> whether a step begins."""
    own, now = s.own[replica], s.clock[NOW]
    first, last = replica * e.many, (replica + 1) * e.many
    known = own[BEGUN] if e.ahead and own[ENDED] == now else now
    for r in range(first, last):
        at = s.at[r]
        at[NEW] = not at[PUT] or at[INBOX] > 0 or at[LEFT] > 0
        if at[NEW]:
            catch_up(s, e, replica, r)
    held = holds(s, e, replica, known)
    rows, until = compose_all(s, e, replica, known, held)
    if held and not rows:
        rows, until = compose_all(s, e, replica, known, False)
    if not rows:
        for r in range(first, last):
            s.at[r, PUT] = 0
        return False
    own[HORIZON], own[MOST], own[AHEAD] = soonest(s, e) if e.closed else next_come(s, e), until - own[STEPS], 0
    return True


@inner
def next_come(s: Any, e: Any) -> Any:
    """ps."""
    clock = s.clock
    return s.of[clock[SEEN], SENT_AT] + e.front if clock[SEEN] < clock[SENT] else np.int64(FAR)


@inner
def soonest(s: Any, e: Any) -> Any:
    """ps of what happens next."""
    found = next_come(s, e)
    for replica in range(s.own.shape[0]):
        if s.own[replica, GOING]:
            found = min(found, s.own[replica, ENDED])
    return found


@inner
def unlearned(s: Any, e: Any, replica: Any, r: Any) -> Any:
    """As Replica._grown, of one scheduler."""
    at, more = s.at[r], 0
    steps = s.own[replica, STEPS] - at[SINCE]
    for number in range(at[DECODES] if at[PUT] and steps else 0):
        request = s.decoding[r, number]
        more += max(-(-(s.of[request, CACHED] + steps) // e.size) - s.has[request, HELD], 0)
    return more


@inner
def end(s: Any, e: Any, replica: Any) -> Any:
    """As Loop._end and Replica.end."""
    own = s.own[replica]
    own[GOING], own[TOUCHED] = 0, 1
    running, waiting, used = 0, 0, 0
    for r in range(replica * e.many, (replica + 1) * e.many):
        at = s.at[r]
        if at[UNTIL] <= own[STEPS]:
            several = own[STEPS] - at[SINCE] > 1
            own[LOAD] -= settle_many(s, e, replica, r) if several else settle(s, e, replica, r)
            at[PUT] = 0
        running += at[STARTED] + at[DECODING]
        waiting += at[INBOX] + at[WAITING]
        used += e.blocks - s.kept[r, FREE] + unlearned(s, e, replica, r)
    sample = s.samples[replica, own[SAMPLES]]
    s.sampled[replica, own[SAMPLES]], sample[0], sample[1], sample[2] = own[ENDED], running, waiting, used
    own[SAMPLES] += 1


@inner
def goes(s: Any, replica: Any) -> Any:
    """As the end of Replica.begin: AHEAD steps are made, whose ends stand after those of earlier ones."""
    own = s.own[replica]
    steps = own[STEPS] + own[AHEAD]
    last = s.ends[replica, steps - 1]
    own[BEGUN] = s.ends[replica, steps - 2] if own[AHEAD] > 1 else s.clock[NOW]
    own[BUSY] += last - s.clock[NOW]
    own[STEPS], own[ENDED], own[GOING], own[AHEAD] = steps, last, 1, 0
    s.clock[PENDING] = NEVER


@inner
def lasts(s: Any, replica: Any, took: Any) -> Any:
    """A step takes so long -> whether another one comes after it, which nobody disturbs."""
    own, at = s.own[replica], s.own[replica, STEPS] + s.own[replica, AHEAD]
    began = s.ends[replica, at - 1] if own[AHEAD] else s.clock[NOW]
    s.ends[replica, at], s.beats[replica, at] = began + took, 0
    own[AHEAD] += 1
    if own[AHEAD] < own[MOST] and began + took < own[HORIZON]:
        return True
    goes(s, replica)
    return False


@inner
def hosted(e: Any, took: Any, prompts: Any, most: Any) -> Any:
    """As Hosted.ps: kernels take so long; the scheduler with the most tokens has so many."""
    graphed = most <= (e.graph_tokens if prompts else e.graph_batch)
    return took if graphed else max(took, e.least)


@inner
def full(s: Any) -> Any:
    """Might what is written down of the next event have no room?"""
    steps, samples, most = 0, 0, s.decoding.shape[1] * (s.at.shape[0] // s.own.shape[0])
    for replica in range(s.own.shape[0]):
        steps = max(steps, s.own[replica, STEPS] + s.own[replica, AHEAD])
        samples = max(samples, s.own[replica, SAMPLES])
    if steps + SPARE > s.ends.shape[1] or samples + SPARE > s.samples.shape[1]:
        return True
    return s.clock[GAPS] + most + SPARE > s.gaps.shape[0]


@inner
def chosen(s: Any, e: Any) -> Any:
    """As the balancers least_outstanding and round_robin -> who serves the next request; UNDECIDED by any other."""
    request, many, best, least = s.clock[SEEN], s.own.shape[0], np.int64(0), np.int64(FAR)
    if many == 1:
        return np.int64(0)
    if e.rule == ROUND_ROBIN:
        return request % many
    if e.rule != LEAST_OUTSTANDING:
        return np.int64(UNDECIDED)
    for replica in range(many):
        load = s.own[replica, LOAD]
        best = np.int64(1) if load < least else best + (load == least)
        least = min(least, load)
    turn, replica = s.of[request, TICKET] % best, 0
    while s.own[replica, LOAD] != least or turn > 0:
        turn -= s.own[replica, LOAD] == least
        replica += 1
    return replica


@inner
def happen(s: Any, e: Any) -> Any:
    """As Loop._happen, one event of now -> whether there was any; somebody who has to be sent to a replica is none."""
    clock = s.clock
    if next_come(s, e) <= clock[NOW]:
        if clock[CHOICE] == UNDECIDED:
            clock[CHOICE] = chosen(s, e)
        if clock[CHOICE] == UNDECIDED:
            return False
        if s.of[clock[SEEN], REPLICA] != REFUSED:
            come(s, e, clock[SEEN], clock[CHOICE])
        clock[CHOICE] = UNDECIDED
        clock[SEEN] += 1
        return True
    for replica in range(s.own.shape[0]):
        if s.own[replica, GOING] and s.own[replica, ENDED] == clock[NOW]:
            end(s, e, replica)
            return True
    return False


@inner
def advance(s: Any, e: Any) -> Any:
    """Until the caller is needed -> what for; the replica whose step begins, or goes on, is PENDING."""
    clock = s.clock
    while True:
        if full(s):
            return FULL
        if clock[PENDING] != NEVER:
            return PRICE
        if happen(s, e):
            continue
        if next_come(s, e) <= clock[NOW]:
            return CHOOSE
        for replica in range(s.own.shape[0]):
            if s.own[replica, TOUCHED]:
                s.own[replica, TOUCHED] = 0
                if begin(s, e, replica):
                    clock[PENDING] = replica
                    break
        if clock[PENDING] != NEVER:
            continue
        now = soonest(s, e)
        if now == FAR:
            return DONE
        clock[NOW] = now


@njit
def asked(s: Any, e: Any) -> Any:
    """`advance`, where every step is priced by the caller."""
    return advance(s, e)


@njit
def played(s: Any, replica: Any, ends: Any) -> Any:
    """The steps of a replica end at int64[n] ps; there is room for them."""
    own = s.own[replica]
    at = own[STEPS] + own[AHEAD]
    for step in range(ends.shape[0]):
        s.ends[replica, at + step], s.beats[replica, at + step] = ends[step], 0
    own[AHEAD] += ends.shape[0]
    goes(s, replica)


@njit
def drained(s: Any, e: Any) -> None:
    """Nothing runs any more: all that is leaving is gone."""
    for r in range(s.at.shape[0]):
        learn(s, e, r, np.int64(FAR), True)


@njit
def rows_of(s: Any, e: Any, replica: Any, ways: Any, rows: Any) -> Any:
    """Fills rows int64[6, S]: rank, request, query, context, phase, emits, as `replica.Joined` has them for the step
    that is to be priced -> how many there are; -1 where there is no room. Each scheduler has `ways` ranks.
    """
    own, count = s.own[replica], 0
    for r in range(replica * e.many, (replica + 1) * e.many):
        at, first = s.at[r], (r - replica * e.many) * ways
        decodes, many = at[DECODES], at[DECODES] + at[CHUNKS]
        if count + max(many, ways) > rows.shape[1]:
            return -1
        ahead = own[STEPS] + own[AHEAD] - at[SINCE]
        for way in range(ways):
            for number in range(way, many, ways):
                if number < decodes:
                    request = s.decoding[r, number]
                    query, context, last, phase = 1, s.of[request, CACHED] + ahead, 1, 0
                else:
                    request, query = s.chunked[r, number - decodes], s.tokens[r, number - decodes]
                    of = s.of[request]
                    context, phase = of[CACHED], PREFILL
                    last = int(context + query == of[PROMPT] + of[EMITTED])
                rows[0, count], rows[1, count], rows[2, count] = first + way, request, query
                rows[3, count], rows[4, count], rows[5, count] = context, phase, last
                count += 1
            if not many:
                rows[0, count], rows[1, count], rows[2, count] = first + way, 0, 1
                rows[3, count], rows[4, count], rows[5, count] = 0, DUMMY, 0
                count += 1
    return count
