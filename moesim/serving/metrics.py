"""The numbers of a run, under vLLM's names and by its formulas (`vllm bench serve`).

TTFT: from sending to the first token. E2EL: to the last. TPOT: (E2EL - TTFT) / (tokens - 1), of answers of 2 or more.
ITL: all gaps between tokens, pooled, but for those of requests that were lost. Goodput: requests a second that meet
every limit. Requests that were sent before `since` are not counted, nor gaps that end before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from moesim.serving.book import Book, State
from moesim.serving.cadence import NEVER, Whole
from moesim.serving.classes import Classes
from moesim.serving.fleet import Fleet
from moesim.serving.follows import Follows
from moesim.serving.kv import Blocks
from moesim.serving.rebalancing import Rebalanced
from moesim.serving.requests import Ints
from moesim.serving.run import POOLS, Served
from moesim.serving.stages import Inside, Line
from moesim.serving.swap import HostMemory
from moesim.units import PICOSECONDS_PER_SECOND, from_ps

Floats = npt.NDArray[np.float64]
PERCENTILES = (50, 90, 95, 99)
BLOCK = 1 << 20  # gaps added up at a time
Numbers = dict[str, tuple[float, str]]


def counted(book: Book, since: int) -> Ints:
    """int64[...]: answered requests that were sent at `since` ps or later."""
    return np.flatnonzero((book.state == State.FINISHED) & (book.sent >= since))


def ttft(book: Book, which: Ints) -> Floats:
    """Seconds."""
    return from_ps(book.first[which] - book.sent[which])


def e2el(book: Book, which: Ints) -> Floats:
    """Seconds."""
    return from_ps(book.ended[which] - book.sent[which])


def tpot(book: Book, which: Ints) -> Floats:
    """Seconds, of answers of 2 tokens or more; NaN for others."""
    gaps = book.output[which] - 1
    held = from_ps(book.ended[which] - book.first[which])
    found: Floats = np.full(len(which), np.nan)
    np.divide(held, gaps, out=found, where=gaps > 0)
    return found


def numbers(served: Served, since: int, limits: Mapping[str, float]) -> Numbers:
    """name -> (value, unit). limits: seconds by "ttft", "tpot", "e2el"; goodput is there where there are any."""
    book, which = served.book, counted(served.book, since)
    begin, end = window(book, which, since)
    seconds = float(from_ps(end - begin))
    prompt, output = int(book.prompt[which].sum()), int(book.output[which].sum())
    found: Numbers = {
        "completed": (len(which), "1"),
        "failed": (len(served.rejected) + book.count(State.LOST) + book.count(State.ABORTED), "1"),
        "total_input": (prompt, "tok"),
        "total_output": (output, "tok"),
        "duration_s": (seconds, "s"),
        "request_throughput": (len(which) / seconds, "1/s"),
        "output_throughput": (output / seconds, "tok/s"),
        "total_token_throughput": ((prompt + output) / seconds, "tok/s"),
    }
    classes = book.requests.classes
    found |= _latencies(book, which, limits, seconds)
    found |= _distribution("itl", *book.gaps(since), PICOSECONDS_PER_SECOND)
    kinds = dict(_kinds(served, which, limits, seconds, classes)) if classes else {}
    return {**found, **kinds, **dict(_staged(served, which)), **dict(_system(served, seconds))}


def _latencies(book: Book, which: Ints, limits: Mapping[str, float], seconds: float) -> Numbers:
    """Of some requests, and how many a second meet their limits where there are some."""
    found: Numbers = {}
    if limits or (book.requests.classes and any(book.requests.classes.limits)):
        found["request_goodput"] = (int(good(book, which, limits).sum()) / seconds, "1/s")
    for name, column in (("ttft", ttft(book, which)), ("tpot", tpot(book, which)), ("e2el", e2el(book, which))):
        found |= _distribution(name, np.sort(column[~np.isnan(column)]), None)
    return found


def _kinds(
    served: Served, which: Ints, limits: Mapping[str, float], seconds: float, classes: Classes
) -> Iterator[tuple[str, tuple[float, str]]]:
    """The same by classes."""
    book = served.book
    for number, name in enumerate(classes.names):
        mine = which[classes.kind[which] == number]
        failed = (classes.kind == number) & np.isin(book.state, (State.REJECTED, State.LOST, State.ABORTED))
        told: Numbers = {"completed": (len(mine), "1"), "failed": (int(failed.sum()), "1")}
        told["request_throughput"] = (len(mine) / seconds, "1/s")
        for metric, value in (told | _latencies(book, mine, limits, seconds)).items():
            yield f"class_{name}_{metric}", value


def good(book: Book, which: Ints, limits: Mapping[str, float]) -> npt.NDArray[np.bool_]:
    """bool[...]: requests that meet all limits, those of their class where it has some; an answer of one token has no
    TPOT to miss.
    """
    classes = book.requests.classes
    if not classes:
        return _within(book, which, limits)
    met: npt.NDArray[np.bool_] = np.zeros(len(which), dtype=np.bool_)
    for number, own in enumerate(classes.limits):
        mine = classes.kind[which] == number
        met[mine] = _within(book, which[mine], limits if own is None else own)
    return met


def _within(book: Book, which: Ints, limits: Mapping[str, float]) -> npt.NDArray[np.bool_]:
    value = {"ttft": ttft, "tpot": tpot, "e2el": e2el}
    met = [~(value[name](book, which) > limit) for name, limit in limits.items()]
    return np.asarray(np.logical_and.reduce(met)) if met else np.ones(len(which), dtype=np.bool_)


def window(book: Book, which: Ints, since: int) -> tuple[int, int]:
    """ps of the first counted request, or the end of the warm-up, and of the last token of a counted one."""
    return max(int(book.sent[which].min()), since), int(book.ended[which].max())


def _distribution(name: str, values: Floats | Ints, many: Whole | None, second: int = 1) -> Numbers:
    """Mean, median, standard deviation and percentiles in ms of ascending values, each `many` times, of which so many
    are a second. `many` is used up: of a long run there are tens of millions.
    """
    if not len(values):
        return {}
    ends = np.ones(len(values), np.int64) if many is None else many
    number = int(ends.sum(dtype=np.int64))
    mean = _total(values, ends) / number
    spread = float(np.sqrt(_total(values, ends, mean, 2) / number))
    np.cumsum(ends, out=ends)
    shown = {"mean": mean, "std": spread}
    for percent in PERCENTILES:
        shown["median" if percent == 50 else f"p{percent}"] = percentile(values, ends, percent)
    order = ("mean", "median", "std", "p90", "p95", "p99")
    return {f"{key}_{name}_ms": (shown[key] / second * 1e3, "ms") for key in order}


def _total(values: Floats | Ints, weights: Whole, about: float = 0.0, power: int = 1) -> float:
    """The sum of weights x (values - about) ** power, in blocks: all at once take more memory than a long run has."""
    blocks = (slice(begin, begin + BLOCK) for begin in range(0, len(values), BLOCK))
    return sum(float(((values[one] - about) ** power * weights[one]).sum()) for one in blocks)


def percentile(values: Floats | Ints, ends: Whole, percent: float) -> float:
    """As numpy's linear one of ascending values, each repeated by its whole weight, whose running sums are `ends`."""
    place = (int(ends[-1]) - 1) * percent / 100
    low = int(place)
    one, other = (
        float(values[np.searchsorted(ends, at, side="right")]) for at in (low, min(low + 1, int(ends[-1]) - 1))
    )
    return one + (other - one) * (place - low)


def _system(served: Served, seconds: float) -> Iterator[tuple[str, tuple[float, str]]]:
    """What the replicas did, warm-up included."""
    book = served.book
    yield "max_concurrent_requests", (most_at_once(book), "1")
    yield "preemptions", (int(book.preempted.sum()), "1")
    moving = [replica.clock for replica in served.replicas if isinstance(replica.clock, Rebalanced)]
    if moving:
        changes = [change for clock in moving for change in clock.changes]
        yield "rebalances", (len(changes), "1")
        yield "moved_experts", (sum(change.moves for change in changes), "1")
        yield "moved_bytes", (sum(change.bytes for change in changes), "B")
        yield "rebalance_stall_s", (sum(change.seconds for change in changes), "s")
    if book.drafted:
        drafts = served.replicas[-1].schedulers[0].settings.num_speculative_tokens
        yield "mean_acceptance_length", (1 + drafts * book.accepted / book.drafted, "tok")
        yield "draft_acceptance_rate", (book.accepted / book.drafted, "1")
    if book.requests.follows:
        yield from _sessions(book, book.requests.follows)
    if served.fleet:
        yield from _fleet(served.fleet, served.end, ("",) if served.entry is None else POOLS)
    asked, found = (
        sum(getattr(one.blocks, name) for replica in served.replicas for one in replica.schedulers)
        for name in ("asked", "found")
    )
    if asked and book.requests.prefixes:
        yield "prefix_cache_hit_rate", (found / asked, "1")
    yield from _hosts(served)
    if served.entry is None:
        yield from _worked(served, range(len(served.replicas)))
        return
    first = 0
    for lead, pool in zip(POOLS, served.pools, strict=True):
        which, first = range(first, first + len(pool)), first + len(pool)
        yield from ((f"{lead}{name}", value) for name, value in _worked(served, which))
    yield from _transfers(book)


def _staged(served: Served, which: Ints) -> Iterator[tuple[str, tuple[float, str]]]:
    """Stages: seconds of work in all, warm-up included; of those with own devices, how busy they are until the end, and
    how long counted requests are there.
    """
    book, busy = served.book, Counter[str]()
    everywhere: list[Inside | Line] = [*book.inside, *([served.line] if served.line else [])]
    for one in everywhere:
        busy.update({stage.name: ticks for stage, ticks in zip(one.stages, one.busy, strict=True)})
    for name, ticks in busy.items():
        yield f"stage_{name}_work_s", (float(from_ps(ticks)), "s")
    if not served.line:
        return
    for number, stage in enumerate(served.line.stages):
        there = np.sort(from_ps(served.line.left[number, which] - served.line.came[number, which]))
        yield from _distribution(f"stage_{stage.name}", there, None).items()
        yield f"stage_{stage.name}_busy_fraction", (busy[stage.name] / (stage.servers * served.end), "1")


def _hosts(served: Served) -> Iterator[tuple[str, tuple[float, str]]]:
    """KV that is kept behind the HBM, where there is something."""
    every = [one for replica in served.replicas for one in replica.schedulers]
    memory = next((one.host for one in every if one.host), None)
    if not memory:
        return
    if memory.swap:
        swaps = [one.queue.swap for one in every if one.queue.swap]
        yield "swapped_blocks", (sum(one.out for one in swaps), "1")
        yield "swapped_bytes", (sum((one.out + one.back) * one.memory.block_bytes for one in swaps), "B")
        yield "swap_refused", (sum(one.full for one in swaps), "1")
    if memory.cache or memory.pool:
        yield from _tiers([(one.blocks, one.host.block_bytes) for one in every if one.host], memory)
    yield "host_copy_s", (float(from_ps(sum(replica.copied for replica in served.replicas))), "s")


def _tiers(every: Sequence[tuple[Blocks, int]], memory: HostMemory) -> Iterator[tuple[str, tuple[float, str]]]:
    """Prefixes that came back from behind the HBM, shares of all tokens of prompts that looked; bytes of a block."""
    asked, tiers = sum(blocks.asked for blocks, _ in every), {}
    for blocks, each in every:
        for tier in (blocks.below, blocks.below.below if blocks.below else None):
            if tier:
                tiers[id(tier)] = tier, blocks.size, each  # a shared one is behind many
    for name, shared, there in (("host_cache", False, memory.cache), ("kv_pool", True, memory.pool)):
        if there:
            found = sum(tier.hits * size for tier, size, _ in tiers.values() if tier.shared == shared)
            yield f"{name}_hit_rate", (found / max(asked, 1), "1")
    yield "restored_bytes", (sum(tier.hits * each for tier, _, each in tiers.values()), "B")


def _sessions(book: Book, follows: Follows) -> Iterator[tuple[str, tuple[float, str]]]:
    """Sessions all of whose requests have an answer, and how long they took."""
    many = np.bincount(follows.session, book.state != State.FINISHED)[: follows.first]
    whole = np.flatnonzero(many == 0)
    yield "sessions_completed", (len(whole), "1")
    yield "aborted", (book.count(State.ABORTED), "1")
    if len(whole):
        ends = np.full(follows.first, NEVER)
        np.maximum.at(ends, follows.session, book.ended)
        yield "mean_session_s", (float(from_ps((ends - book.sent[: follows.first])[whole]).mean()), "s")


def _fleet(fleet: Fleet, end: int, leads: Sequence[str]) -> Iterator[tuple[str, tuple[float, str]]]:
    """Replicas that died, or came and went, until `end` ps; leads: of the names of each pool's."""
    book = fleet.book
    yield "lost", (book.count(State.LOST), "1")
    if fleet.outages:
        yield "retries", (int(book.retried.sum()), "1")
        yield "down_s", (float(from_ps(sum(fleet.down(end, pool) for pool in fleet.pools))), "s")
    for scaler in fleet.scalers:
        lead = leads[[pool.start for pool in fleet.pools].index(scaler.numbers.start)]
        yield f"{lead}mean_replicas", (scaler.paid(0, end) / max(end, 1), "1")
        yield f"{lead}replicas_started", (scaler.ups, "1")
        yield f"{lead}replicas_let_go", (scaler.downs, "1")


def _worked(served: Served, which: range) -> Iterator[tuple[str, tuple[float, str]]]:
    """Steps of alike replicas, over the time in which they could work: dead and stopped ones cannot."""
    end, fleet = served.end, served.fleet
    there = fleet.could_work(end, which) if fleet else dict.fromkeys(which, end)
    pool = [served.replicas[number] for number in there]
    steps, busy = (sum(getattr(replica, name) for replica in pool) for name in ("steps", "busy"))
    blocks = sum(one.blocks.total for replica in pool for one in replica.schedulers)
    most = sum(replica.history.most_blocks for replica in pool)
    yield "steps", (steps, "1")
    yield "mean_step_ms", (busy / max(steps, 1) / 1e9, "ms")
    yield "busy_fraction", (busy / max(sum(there.values()), 1), "1")
    yield "kv_peak_utilisation", (most / max(blocks, 1), "1")


def _transfers(book: Book) -> Iterator[tuple[str, tuple[float, str]]]:
    """KV that went from pool to pool."""
    moved = np.flatnonzero(book.landed != NEVER)
    yield "transfers", (len(moved), "1")
    if not len(moved):
        return
    seconds = np.sort(from_ps(book.landed[moved] - book.departed[moved]))
    yield from _distribution("transfer", seconds, None).items()
    yield "mean_handover_ms", (float(from_ps((book.departed - book.prefilled)[moved]).mean()) * 1e3, "ms")


def most_at_once(book: Book) -> int:
    """Requests that were sent and not yet answered, at most."""
    done = np.flatnonzero(book.state == State.FINISHED)
    at = np.concatenate((book.sent[done], book.ended[done]))
    change = np.repeat((1, -1), len(done))
    order = np.lexsort((change, at))
    return int(np.cumsum(change[order]).max(initial=0))


def breakdown(served: Served, since: int, front: int) -> dict[str, float]:
    """Mean seconds of each part of a counted request's time; they add up to its mean E2EL.

    stages_s: in stages before the replicas, where there are some; queue_s: then until its first step; prefill_s: until
    its first token; decode_s: until its last one, but for preempted_s: without a cache (it was preempted, or its
    replica died), waiting to be computed again. Between pools: handover_s until its KV leaves, transfer_s until it is
    there, with the first token. front: ps from the client to the first of them.
    """
    book, which = served.book, counted(served.book, since)
    lost = book.lost[which]
    moved = book.landed[which] != NEVER
    begin, end = (np.where(moved, column[which], book.first[which]) for column in (book.prefilled, book.landed))
    leaves = np.where(moved, book.departed[which], begin)
    stages = served.line.waited(which) if served.line else np.zeros_like(lost)
    parts = {
        "frontend_s": np.full(len(which), front),
        "stages_s": stages,
        "queue_s": book.started[which] - book.sent[which] - front - stages,
        "prefill_s": begin - book.started[which],
        "handover_s": leaves - begin,
        "transfer_s": end - leaves,
        "decode_s": book.ended[which] - book.first[which] - lost,
        "preempted_s": lost,
    }
    if served.entry is None:
        del parts["handover_s"], parts["transfer_s"]
    if not served.line:
        del parts["stages_s"]
    return {name: _exact(column) / PICOSECONDS_PER_SECOND / len(which) for name, column in parts.items()}


def _exact(column: Ints) -> int:
    """The sum of ps: of many requests that wait for long it is beyond int64."""
    return (int((column >> 32).sum()) << 32) + int((column & 0xFFFFFFFF).sum())
