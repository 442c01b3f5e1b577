"""Prefix caches: what is found, what is lost first, and that blocks are conserved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.serving import Book, Replica, Requests, State
from moesim.serving.balancer import Ask, prefix_affinity
from moesim.serving.kv import Blocks
from moesim.serving.prefixes import Continued, Documents, Hashed, check_blocks
from moesim.step import Batch
from tests.serving.systems import MS, by_tokens, requests_of, served
from tests.serving.test_laws import COLUMNS


def documents(text: list[int], shared: list[int]) -> Documents:
    return Documents(np.array(text, dtype=np.int64), np.array(shared, dtype=np.int64))


def test_a_prompt_that_was_there_is_not_computed_again() -> None:
    """100 tokens, 64 of them shared, then 50 of the same text, 40 shared: 2 blocks of 16 are found, 18 computed."""
    queries: list[list[int]] = []

    def step(batch: Batch) -> int:
        queries.append(batch.query.tolist())
        return MS

    asked = replace(requests_of([0, 100 * MS], [100, 50], 3), prefixes=documents([7, 7], [64, 40]))
    book = served(asked, step, blocks=100).book
    assert queries == [[100], [1], [1], [18], [1], [1]]
    assert book.reused.tolist() == [0, 32]
    assert book.cached.tolist() == [102, 52]
    assert served(asked, step, blocks=100, prefix_cache=False).book.reused.tolist() == [0, 0]


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    book = served(replace(requests_of([0, 9 * MS], 64, 2), prefixes=documents([1, 1], [64, 64])), lambda batch: MS).book
    assert book.reused.tolist() == [0, 48]


def test_what_was_not_used_for_longest_is_lost_first_and_of_a_text_its_end() -> None:
    blocks = Blocks(4, 16, 3)
    for request, content in ((0, [10, 11]), (1, [20])):
        assert blocks.admit(request, [], 16 * len(content))
        blocks.fill(request, content)
        blocks.give_back(request)
    assert blocks.free == 4 and blocks.known([10, 11]) == 2
    assert blocks.admit(2, [], 32)  # one is empty, so one is lost
    assert (blocks.known([10, 11]), blocks.known([20])) == (1, 1)
    blocks.check_integrity()


def test_blocks_in_use_are_shared_and_counted_once() -> None:
    blocks = Blocks(4, 16, 2)
    assert blocks.admit(0, [], 32)
    blocks.fill(0, [1, 2])
    assert blocks.admit(1, [1, 2], 48)
    assert blocks.free == 1
    blocks.give_back(0)
    assert blocks.free == 1
    blocks.give_back(1)
    assert blocks.free == 4
    blocks.check_integrity()


@pytest.mark.parametrize("preset", ["vllm", "sglang", "trtllm"])
def test_requests_and_blocks_are_conserved_with_shared_prefixes(preset: str) -> None:
    draw = np.random.default_rng(3)
    prompt = draw.integers(1, 700, 200)
    asked = replace(
        requests_of(np.cumsum(draw.exponential(4 * MS, 200)).astype(int), prompt, draw.integers(1, 60, 200)),
        prefixes=Documents(draw.integers(0, 5, 200), prompt * 3 // 4),
    )

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()

    found = served(asked, by_tokens, preset, blocks=90, replicas=2, schedulers=2, watch=watch, max_num_seqs=24)
    book = found.book
    assert book.count(State.FINISHED) + len(found.rejected) == 200
    done = book.state == State.FINISHED
    assert np.array_equal(book.emitted[done], book.output[done])
    assert np.all(book.reused <= asked.prefixes.shared) and book.reused.sum() > 0  # type: ignore[union-attr]


def test_prefixes_that_nobody_shares_change_nothing_while_none_is_evicted() -> None:
    draw = np.random.default_rng(4)
    asked = requests_of(np.cumsum(draw.exponential(9 * MS, 90)).astype(int), draw.integers(1, 700, 90), 20)
    alone = replace(asked, prefixes=Documents(np.arange(90), asked.prompt))
    one, other = (served(requests, by_tokens, schedulers=2).book for requests in (asked, alone))
    for name in ("started", "first", "ended", "preempted", "replica"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def continued(asked: Requests, shared: Documents) -> Requests:
    """The same as sessions of one turn, which know all blocks by what they hold."""
    n = len(asked)
    whole = Continued(n + shared.text, shared.shared, asked.prompt + asked.output, np.arange(n))
    return replace(asked, prefixes=whole)


def test_full_blocks_of_others_push_a_text_out() -> None:
    """A text of 48 tokens, two prompts of their own of 129 (9 blocks, 8 of them full), the text again: of 14 blocks it
    has none left by then, of 40 all.
    """
    asked = requests_of(np.arange(4) * 50 * MS, [64, 129, 129, 64], 2)
    shared = documents([7, 0, 1, 7], [48, 0, 0, 48])
    few, many = (served(replace(asked, prefixes=shared), by_tokens, blocks=blocks).book for blocks in (14, 40))
    assert (few.reused.tolist()[3], many.reused.tolist()[3]) == (0, 48)


@pytest.mark.parametrize("blocks", [150, 250, 400])
@pytest.mark.parametrize("schedulers", [1, 2])
def test_blocks_that_nobody_asks_for_count_as_if_each_were_known(blocks: int, schedulers: int) -> None:
    """One entry for all of a request's own blocks, against an identity for each."""
    draw = np.random.default_rng(blocks)
    text = draw.integers(0, 30, 250)
    shared = Documents(text, 100 + 17 * (text % 11))
    at, own = np.cumsum(draw.exponential(60 * MS, 250)).astype(int), draw.integers(1, 200, 250)
    asked = requests_of(at, shared.shared + own, draw.integers(1, 60, 250))
    case: dict[str, Any] = {"blocks": blocks, "schedulers": schedulers, "max_num_seqs": 4}
    one, other = (
        served(requests, by_tokens, **case) for requests in (replace(asked, prefixes=shared), continued(asked, shared))
    )
    assert not one.book.preempted.any() and 0 < one.book.reused.sum() < 0.9 * (shared.shared // 16 * 16).sum()
    for name in (*COLUMNS, "reused"):
        assert np.array_equal(getattr(one.book, name), getattr(other.book, name)), name


def test_recorded_hashes_stand_for_the_blocks_that_end_in_them() -> None:
    """Two prompts of 1,100 and 1,030 tokens with a first hash in common: 32 blocks of 16 are the same."""
    found = Hashed(np.array([0, 3, 6]), np.array([5, 6, 7, 5, 8, 9]), np.array([1100, 1030]), 512)
    one, other = found.blocks(0, 16), found.blocks(1, 16)
    assert (len(one), len(other)) == (68, 64)
    assert one[:32] == other[:32] and not set(one[32:]) & set(other)
    with pytest.raises(BadInput, match="no whole blocks of 48"):
        check_blocks(512, 48)


def test_prompts_that_begin_alike_go_to_one_replica_until_it_is_full() -> None:
    rng = np.random.default_rng(0)
    home = prefix_affinity.choose([0, 0, 0, 0], Ask(0, 9), rng)
    assert {prefix_affinity.choose([3, 3, 3, 3], Ask(n, 9), rng) for n in range(20)} == {home}
    loads = [2, 2, 2, 2]
    loads[home] = 40
    assert prefix_affinity.choose(loads, Ask(1, 9), rng) == (home + 1) % 4
    assert len({prefix_affinity.choose([1] * 4, Ask(0, group), rng) for group in range(30)}) == 4
    assert prefix_affinity.choose([2, 0, 2, 2], Ask(0), rng) == 1
