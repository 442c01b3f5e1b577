"""Laws of disaggregated pools: two halves, nothing lost on the way, transfers as long as their bytes say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from moesim.costs import CommunicationCost
from moesim.hardware import load_cluster
from moesim.network import Fabric
from moesim.serving import Book, Replica, Scheduler, Served, State
from moesim.serving.metrics import numbers
from moesim.serving.transfer import KERNEL, Instant, Wires, shares
from moesim.step import Batch, Phase
from tests.serving.systems import MS, by_tokens, requests_of, served, split
from tests.serving.test_laws import COLUMNS, crowd

BYTES = 70_272  # of a token


def wires(nodes: int = 2) -> Wires:
    """All links at their nominal rates, no start-up: 50 GB/s out of a GPU of a DGX H100."""
    fabric = Fabric(load_cluster("dgx-h100", nodes=nodes), {KERNEL: CommunicationCost(alpha=0.0)})
    return Wires(fabric, lambda tokens: BYTES * tokens)


def answered(begin: np.ndarray, more: np.ndarray) -> np.ndarray:
    """ps at which answers end that begin at int64[n] and need `more` tokens: every step takes all that are there."""
    left, ended, now = more.copy(), np.zeros_like(begin), 0
    while left.any():
        here = (begin <= now) & (left > 0)
        if not here.any():
            now = int(begin[left > 0].min())
            continue
        now += MS + 10**7 * int(here.sum())
        left[here] -= 1
        ended[here & (left == 0)] = now
    return ended


def test_without_a_network_a_pair_is_its_two_halves() -> None:
    """Prompts as if every answer had one token; answers as if each came with its KV, and joined at the next step."""
    arrival, prompt, output = crowd(1, n=150)
    output = np.maximum(output, 2)

    def step(batch: Batch) -> int:
        return by_tokens(batch) if Phase.PREFILL in batch.phase else MS + 10**7 * batch.tokens

    pair = split(requests_of(arrival, prompt, output), step, Instant()).book
    half = served(requests_of(arrival, prompt, 1), step).book
    assert np.array_equal(pair.prefilled, half.ended) and np.array_equal(pair.started, half.started)
    assert np.array_equal(pair.ended, answered(half.ended, output - 1))


@pytest.mark.parametrize("preset", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("ahead", [False, True])
def test_nothing_is_lost_on_the_way(preset: str, ahead: bool) -> None:
    links, under_way = wires(), []

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()
            assert one.queue.seats >= 0 and one.handed >= 0 and one.expected >= 0
        states = {state: book.count(state) for state in State}
        assert sum(states.values()) == len(book.requests)
        assert sum(replica.load for replica in replicas) == states[State.WAITING] + states[State.RUNNING]
        assert sum(one.handed for replica in replicas for one in replica.schedulers) == states[State.TRANSFER]
        under_way.append(states[State.TRANSFER])

    found = split(
        requests_of(*crowd(1, n=160)), by_tokens, links, preset, blocks=(150, 130), replicas=(2, 1), schedulers=2,
        watch=watch, schedule_ahead=ahead, max_num_seqs=24,
    )  # fmt: skip
    book = found.book
    assert max(under_way) > 1 and book.count(State.FINISHED) + len(found.rejected) == 160
    done = book.state == State.FINISHED
    assert np.array_equal(book.emitted[done], book.output[done])
    moved = book.landed >= 0
    assert np.array_equal(moved, done & (book.output > 1))
    order = [book.sent, book.started, book.prefilled, book.departed, book.landed, book.ended]
    assert all(np.all(one[moved] <= other[moved]) for one, other in pairwise(order))
    assert links.carried.sum() > 0


@pytest.mark.parametrize("ahead", [False, True])
def test_stretches_of_decodes_change_nothing(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Served:
        asked = requests_of(*crowd(3, n=100, gap=25.0))
        return split(asked, by_tokens, wires(), blocks=(120, 120), schedulers=2, replicas=(1, 2), schedule_ahead=ahead)

    runs = [run()]
    assert sum(len(one.history) for one in runs[0].replicas) < sum(one.steps for one in runs[0].replicas)
    monkeypatch.setattr(Scheduler, "stretch", lambda self, rows: 1)
    runs.append(run())
    for name in (*COLUMNS, "prefilled", "departed", "landed", "decoder"):
        assert np.array_equal(*(getattr(one.book, name) for one in runs)), name
    assert [r.steps for r in runs[0].replicas] == [r.steps for r in runs[1].replicas]


def test_kv_takes_as_long_as_its_bytes_say_and_shares_ports() -> None:
    """8 + 8 GPUs: 50 GB/s from a GPU to another node; two that leave one GPU at a time get half of it each."""
    for many, factor in ((1, 1.0), (2, 2.0)):
        links = wires()
        for number in range(many):
            links.start(number, np.array([0]), np.array([8]), 1000, 0)
        last = links.soonest()
        while len(links.landed(last)) == 0:
            last = links.soonest()
        assert last == pytest.approx(factor * 1000 * BYTES / 50e9 * 1e12, rel=1e-9)


def test_ranks_of_both_sides_share_a_request() -> None:
    one, other, share = shares(2, 4)
    assert (one.tolist(), other.tolist(), share.tolist()) == ([0, 0, 1, 1], [0, 1, 2, 3], [1.0] * 4)
    one, other, share = shares(4, 2)
    assert (one.tolist(), other.tolist(), share.tolist()) == ([0, 1, 2, 3], [0, 0, 1, 1], [0.5] * 4)
    one, other, share = shares(2, 3)
    assert (one.tolist(), other.tolist()) == ([0, 0, 1, 1], [0, 1, 1, 2])
    assert np.allclose(share, [1.0, 0.5, 0.5, 1.0])


def test_what_waits_for_room_holds_back_prompts() -> None:
    """Room for one answer at a time: prompts stop once their own blocks are held by KV that waits."""
    book = split(requests_of(np.zeros(6), 160, 11), lambda batch: MS, Instant(), blocks=(20, 11)).book
    assert book.prefilled[0] == book.prefilled[1] == MS and book.departed[0] == MS
    assert book.ended[0] == 11 * MS and book.departed[1] == 11 * MS
    assert book.started[2] == MS  # the first one's blocks came back
    assert book.started[3] >= book.departed[1]
    assert np.array_equal(np.sort(book.ended), book.ended) and np.all(np.diff(book.ended) == 10 * MS)


def test_what_can_never_be_answered_is_rejected_before_its_prompt() -> None:
    found = split(requests_of(0, [10, 200], [5, 200]), lambda batch: MS, Instant(), blocks=(100, 20))
    assert set(found.rejected) == {1} and "the KV cache holds 320" in found.rejected[1]
    assert found.book.started[1] < 0


def test_where_nothing_moves_there_is_no_handover() -> None:
    """The one that would have moved is rejected."""
    found = split(requests_of(0, [10, 200], [1, 200]), lambda batch: MS, Instant(), blocks=(100, 20))
    told = numbers(found, 0, {})
    assert told["transfers"] == (0, "1") and "mean_handover_ms" not in told
