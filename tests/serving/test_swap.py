"""KV of preempted requests in host memory: nothing is lost, copies take their time, answers go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moesim.serving import Book, Replica, State
from moesim.serving.metrics import numbers
from moesim.serving.swap import HostMemory
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, served
from tests.serving.test_laws import COLUMNS, crowd

PRESETS = ("vllm", "sglang")
FREE = HostMemory(swap=10**6)


def test_two_answers_that_do_not_fit_by_hand() -> None:
    """Four blocks of 16, two prompts of 31 tokens: both fill their second block in the first step (31 + 1 tokens are 2
    blocks). When request 0 needs a third one, request 1 leaves two blocks at the host for 2 x 3 ms, and comes back for
    as much once 0 has its answer, to be one token of its own further in every step.
    """
    host = HostMemory(swap=2, copy=3 * MS, block_bytes=100)
    found = served(requests_of([0, 0], 31, 4), lambda batch: MS, blocks=4, host=host)
    book = found.book
    assert book.preempted.tolist() == [0, 1] and book.first.tolist() == [MS, MS]
    assert book.ended.tolist() == [10 * MS, 18 * MS]  # 1 | 2 | +6, 9 | 10; then +6, 17 | 18
    values = {name: value for name, (value, _) in numbers(found, 0, {}).items()}
    assert (values["swapped_blocks"], values["swapped_bytes"], values["host_copy_s"]) == (2, 400, 0.012)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("room", [0, 40, 10**6])
def test_requests_and_blocks_are_conserved_at_every_instant(preset: str, ahead: bool, room: int) -> None:
    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()
            assert one.queue.seats >= 0
            if one.queue.swap:
                one.queue.swap.check_integrity()
                assert set(one.queue.swapped) == set(one.queue.swap.held)
        inside = sum(replica.load for replica in replicas)
        assert inside == book.count(State.WAITING) + book.count(State.RUNNING)

    found = served(
        requests_of(*crowd(1, n=160, gap=1.0)), by_tokens, preset, blocks=90, replicas=2, schedulers=2, watch=watch,
        schedule_ahead=ahead, max_num_seqs=24, reserved_output=0.0, host=HostMemory(swap=room, copy=MS // 20),
    )  # fmt: skip
    book, swaps = found.book, [one.queue.swap for replica in found.replicas for one in replica.schedulers]
    assert book.count(State.FINISHED) == 160 and np.array_equal(book.emitted, book.output)
    assert np.array_equal(book.cached, book.prompt + book.output - 1)
    assert book.preempted.sum() > 0
    out, full = (sum(getattr(one, name) for one in swaps if one) for name in ("out", "full"))
    assert (out > 0) == (room > 0) and (not full or room == 40)


def test_littles_law_holds_while_kv_is_at_the_host() -> None:
    """The area under the requests in the system is the sum of their times."""
    book = served(requests_of(*crowd(2)), by_tokens, blocks=90, host=HostMemory(swap=10**6, copy=MS // 20)).book
    at = np.concatenate((book.sent, book.ended))
    order = np.argsort(at, kind="stable")
    inside = np.cumsum(np.repeat((1, -1), len(book.sent))[order])
    area = sum(int(n) * int(t) for n, t in zip(inside[:-1], np.diff(at[order]), strict=True))
    assert inside[-1] == 0 and area == int((book.ended - book.sent).sum())
    assert book.preempted.sum() > 0 and book.lost[book.preempted > 0].min() >= 0


def test_no_room_at_the_host_is_recomputing() -> None:
    asked = requests_of(*crowd(3, n=100))
    plain, none = (served(asked, by_tokens, blocks=90, host=host).book for host in (None, HostMemory(swap=0)))
    short = served(asked, by_tokens, blocks=90, host=HostMemory(swap=1, copy=MS)).book
    assert plain.preempted.sum() > 0
    for name in COLUMNS:
        assert getattr(plain, name).tolist() == getattr(none, name).tolist(), name
    assert short.preempted.sum() > 0  # requests of one block may go there


def test_free_copies_compute_each_token_once() -> None:
    """Without a host what is preempted is computed again; with one no token of an answer is."""
    asked = requests_of(np.zeros(20), 100, 90)
    computed = {}
    for name, host in (("swap", FREE), ("recompute", None)):
        seen: list[int] = []

        def step(batch: Any, seen: list[int] = seen) -> int:
            seen.append(batch.tokens)
            return MS

        assert served(asked, step, blocks=80, prefix_cache=False, host=host).book.preempted.sum() > 0
        computed[name] = sum(seen)
    assert computed["swap"] == 20 * (100 + 89) < computed["recompute"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("drafts", [{}, {"num_speculative_tokens": 2, "draft_acceptance_rate": 0.6}])
def test_stretches_change_nothing(preset: str, drafts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> Any:
        asked, host = requests_of(*crowd(6, n=120, gap=2.0)), HostMemory(swap=60, copy=MS // 9)
        return served(
            asked, by_tokens, preset, blocks=90, schedulers=2, max_num_seqs=16, reserved_output=0.0, host=host, **drafts
        )

    whole, single = in_stretches_and_steps(play, COLUMNS, monkeypatch)
    assert numbers(whole, 0, {}) == numbers(single, 0, {}) and whole.replicas[0].copied > 0
