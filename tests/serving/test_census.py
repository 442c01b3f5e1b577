"""The columns of a replica say what its schedulers would, whatever has happened to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving import Book, Replica
from moesim.serving.census import EXPECTED, LANDED, RUNNING, USED, WAITING
from moesim.serving.transfer import Instant
from tests.serving.systems import MS, by_tokens, requests_of, served, split


def check_columns(book: Book, replicas: Sequence[Replica], now: int) -> None:
    for replica in replicas:
        found = [replica._census.of(column).tolist() for column in (RUNNING, WAITING, LANDED, EXPECTED, USED)]
        queues = [one.queue for one in replica.schedulers]
        assert found[0] == [len(one.started) + len(one.decoding) for one in queues]
        assert found[1] == [len(one.inbox) + len(one.queue.waiting) for one in replica.schedulers]
        assert found[2] == [len(one.landed) for one in replica.schedulers]
        assert found[3] == [one.expected for one in replica.schedulers]
        assert found[4] == [one.blocks.total - one.blocks.free for one in replica.schedulers]
        assert replica.load == sum(one.load for one in replica.schedulers)
        untouched = set(range(len(queues))) - replica._touched
        assert not any(replica._goes[number] is None or replica.schedulers[number].news for number in untouched)


def test_columns_are_what_schedulers_have_after_every_event() -> None:
    rng = np.random.default_rng(3)
    asked = requests_of(np.sort(rng.integers(0, 300 * MS, 60)), rng.integers(1, 400, 60), rng.integers(1, 60, 60))
    served(asked, by_tokens, schedulers=4, blocks=60, replicas=2, watch=check_columns)
    split(asked, by_tokens, Instant(), schedulers=4, blocks=(80, 60), watch=check_columns)
