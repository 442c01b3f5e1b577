"""Orders of the queue by deadlines: who has least slack is next, and without limits nothing changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from moesim.serving import Requests
from moesim.serving.classes import Classes
from moesim.serving.metrics import numbers
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, served
from tests.serving.test_laws import COLUMNS, crowd

ONE: dict[str, Any] = {"max_num_seqs": 1, "scheduling_policy": "deadline"}


def limited(requests: Requests, kind: Any, *limits: float | None) -> Requests:
    """Of kind k, a limit of TTFT in seconds, None for none at all."""
    own = tuple({} if limit is None else {"ttft": limit} for limit in limits)
    names = tuple("abcdefgh"[: len(limits)])
    classes = Classes(np.asarray(kind, dtype=np.int64), names, (0,) * len(names), own)
    return Requests(requests.arrival, requests.prompt, requests.output, classes=classes)


def test_least_slack_is_next() -> None:
    """One seat, services of 2 ms. Deadlines at 1000, 3, 53, 54, 6 ms and none: 0 has begun when 1 to 5 come."""
    asked = limited(requests_of(np.arange(6) * MS // 4, 10, 2), [0, 1, 2, 2, 1, 3], 1.0, 3e-3, 52e-3, None)
    book = served(asked, lambda batch: MS, **ONE).book
    assert np.argsort(book.started).tolist() == [0, 1, 4, 2, 3, 5]


def test_who_has_no_limit_comes_after_all_that_have_one_by_arrival() -> None:
    asked = limited(requests_of(np.arange(5) * MS // 4, 10, 2), [0, 0, 0, 1, 1], None, 60.0)
    assert np.argsort(served(asked, lambda batch: MS, **ONE).book.started).tolist() == [0, 3, 4, 1, 2]


def test_a_class_without_limits_of_its_own_has_the_scenarios() -> None:
    asked = limited(requests_of(np.arange(3) * MS // 4, 10, 2), [0, 0, 1], 1.0, 0.5)
    assert asked.classes is not None
    asked = replace(asked, classes=replace(asked.classes, limits=(None, {"ttft": 0.5})))
    for common, order in ((1.0, [0, 2, 1]), (1e-3, [0, 1, 2]), (None, [0, 2, 1])):
        assert np.argsort(served(asked, lambda batch: MS, ttft=common, **ONE).book.started).tolist() == order


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_one_server_has_a_smaller_largest_lateness(seed: int) -> None:
    """Jackson's rule, against all orders of five requests that are there at once; a step is one prompt."""
    draw = np.random.default_rng(seed)
    service, limit = draw.integers(1, 9, 5), draw.integers(1, 25, 5)
    asked = limited(requests_of(np.zeros(5), service, 1), range(5), *(limit * 1e-3))
    book = served(
        asked, lambda batch: int(batch.query.sum()) * MS, policy="whole_prompts", reserved_output=1.0, **ONE
    ).book  # fmt: skip
    late = max((book.first // MS - limit).tolist())
    assert late == min(
        max((np.cumsum(service[list(order)]) - limit[list(order)]).tolist()) for order in permutations(range(5))
    )


@pytest.mark.parametrize("blocks", [90, 10**6])
@pytest.mark.parametrize("limit", [None, 0.3])
def test_without_limits_or_with_one_for_all_it_is_first_come_first_served(blocks: int, limit: float | None) -> None:
    asked = requests_of(*crowd(5, n=120, gap=9.0))
    one, other = (
        served(asked, by_tokens, blocks=blocks, schedulers=2, max_num_seqs=16, scheduling_policy=policy, ttft=limit)
        for policy in ("deadline", "fcfs")
    )
    assert (one.book.preempted.sum() > 0) == (blocks == 90)
    for name in COLUMNS:
        assert getattr(one.book, name).tolist() == getattr(other.book, name).tolist(), name
    assert numbers(one, 0, {}) == numbers(other, 0, {})


def test_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = np.random.default_rng(6).integers(0, 3, 120)

    def play() -> Any:
        asked = limited(requests_of(*crowd(6, n=120, gap=9.0)), kind, 0.05, 0.5, None)
        return served(asked, by_tokens, blocks=90, schedulers=2, max_num_seqs=16, scheduling_policy="deadline")

    book = in_stretches_and_steps(play, COLUMNS, monkeypatch)[0].book
    assert np.array_equal(book.emitted, book.output) and book.preempted.sum() > 0
