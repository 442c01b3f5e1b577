"""Tiers behind the HBM: what falls out is found there, comes back at their rate, and nothing is lost or twice there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.serving import Book, Replica, Requests, Served
from moesim.serving.fleet import Outage
from moesim.serving.metrics import numbers
from moesim.serving.prefixes import Documents
from moesim.serving.swap import HostMemory
from moesim.serving.tiers import Tier
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, served
from tests.serving.test_laws import COLUMNS

ALL = (*COLUMNS, "reused")


def readers(seed: int, n: int = 150, texts: int = 9, gap: float = 30.0) -> Requests:
    """Requests whose prompts begin with one of some texts of 160 to 400 tokens."""
    draw = np.random.default_rng(seed)
    text = draw.integers(0, texts, n)
    shared = 160 + 30 * (text % 9)
    at = np.cumsum(draw.exponential(gap * MS, n)).astype(int)
    asked = requests_of(at, shared + draw.integers(1, 60, n), draw.integers(1, 20, n))
    return replace(asked, prefixes=Documents(text.astype(np.int64), shared.astype(np.int64)))


def hits(found: Served) -> tuple[int, int]:
    """Blocks that came from hosts, and from the pool."""
    below = [one.blocks.below for replica in found.replicas for one in replica.schedulers]
    own = sum(tier.hits for tier in below if tier and not tier.shared)
    pools = {id(last): last for tier in below if tier and (last := tier if tier.shared else tier.below)}
    return own, sum(tier.hits for tier in pools.values())


def test_a_text_that_fell_out_comes_back_by_hand() -> None:
    """Six blocks of 16. Text 0 (64 tokens of 70) is there, then a prompt of 90 tokens needs all six: its 4 blocks go to
    the host; then text 0 again: 4 blocks x 2 ms in front of a step that computes the 6 tokens that are left.
    """
    asked = replace(
        requests_of([0, 100 * MS, 200 * MS], [70, 90, 70], 1),
        prefixes=Documents(np.array([0, 1, 0]), np.array([64, 0, 64])),
    )
    queries: list[list[int]] = []

    def step(batch: Any) -> int:
        queries.append(batch.query.tolist())
        return MS

    found = served(asked, step, blocks=6, host=HostMemory(cache=9, copy=2 * MS, block_bytes=10))
    assert queries == [[70], [90], [6]] and found.book.reused.tolist() == [0, 0, 64]
    assert found.book.ended.tolist() == [MS, 101 * MS, 209 * MS]
    values = {name: value for name, (value, _) in numbers(found, 0, {}).items()}
    assert (values["host_cache_hit_rate"], values["prefix_cache_hit_rate"]) == (64 / 230, 64 / 230)
    assert (values["restored_bytes"], values["host_copy_s"]) == (40, 0.008)


def test_the_longest_unused_falls_into_the_next_tier_which_keeps_what_it_lends() -> None:
    pool = Tier(2, copy=7, shared=True)
    host = Tier(2, copy=3, below=pool)
    for content in (1, 2, 3, 4, 5):
        host.put(content)
    assert [content for content in range(1, 6) if host.find(content) is host] == [4, 5]
    assert [content for content in range(1, 6) if host.find(content) is pool] == [2, 3] and pool.fallen == 1
    assert (host.lift(4), host.lift(2)) == (3, 7)
    assert host.find(4) is None and host.find(2) is pool
    pool.put(9)  # 3 is the longest unused now
    assert pool.find(3) is None and pool.find(2) is pool
    host.check_integrity(lambda content: content == 4)


@pytest.mark.parametrize("blocks", [70, 10**6])
def test_no_memory_behind_it_changes_nothing(blocks: int) -> None:
    one, other = (served(readers(1), by_tokens, blocks=blocks, host=host) for host in (None, HostMemory()))
    for name in ALL:
        assert getattr(one.book, name).tolist() == getattr(other.book, name).tolist(), name


@pytest.mark.parametrize("tier", [{"cache": 10**6}, {"pool": 10**6}, {"cache": 20, "pool": 10**6}])
def test_endless_tiers_without_copying_are_a_cache_that_never_forgets(tier: dict[str, int]) -> None:
    """Two run at a time and have blocks enough: what differs is what is found."""
    few: dict[str, Any] = {"blocks": 66, "max_num_seqs": 2}
    behind = served(readers(2), by_tokens, host=HostMemory(**tier), **few)
    never = served(readers(2), by_tokens, max_num_seqs=2)
    forgets = served(readers(2), by_tokens, **few)
    for name in ALL:
        assert getattr(behind.book, name).tolist() == getattr(never.book, name).tolist(), name
    assert forgets.book.reused.sum() < never.book.reused.sum() and sum(hits(behind)) > 0


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("swap", [0, 30])
def test_blocks_are_conserved_in_all_tiers_at_every_instant(ahead: bool, swap: int) -> None:
    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        for one in (scheduler for replica in replicas for scheduler in replica.schedulers):
            one.blocks.check_integrity()

    host = HostMemory(swap=swap, copy=MS // 50, cache=25, pool=40, pool_copy=MS // 10)
    found = served(
        readers(3, gap=4.0), by_tokens, blocks=70, replicas=2, schedulers=2, watch=watch, schedule_ahead=ahead,
        host=host,
    )  # fmt: skip
    assert np.array_equal(found.book.emitted, found.book.output)
    assert min(hits(found)) > 0, "the case is meant to find some in each"


def test_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> Served:
        host = HostMemory(swap=30, copy=MS // 50, cache=25, pool=40, pool_copy=MS // 10)
        return served(readers(4, gap=6.0), by_tokens, blocks=70, replicas=2, schedulers=2, host=host)

    whole, single = in_stretches_and_steps(play, ALL, monkeypatch)
    assert numbers(whole, 0, {}) == numbers(single, 0, {}) and whole.replicas[0].copied > 0


def test_what_dies_with_a_replica_is_its_host_memory_and_not_the_pool() -> None:
    """Text 0 fell into the tier of the only replica, which dies and returns."""
    asked = replace(
        requests_of([0, 100 * MS, 900 * MS], [70, 90, 70], 1),
        prefixes=Documents(np.array([0, 1, 0]), np.array([64, 0, 64])),
    )
    dies = [Outage(0, 300 * MS, 400 * MS)]
    for host, reused in ((HostMemory(cache=9), 0), (HostMemory(pool=9), 64)):
        book = served(asked, lambda batch: MS, blocks=6, outages=dies, host=host).book
        assert book.reused.tolist() == [0, 0, reused]
