"""Sessions: turns that wait for each other, prompts that grow, children of agents, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.serving import Book, Replica, Requests, RequestsSection, Served, State
from moesim.serving.balancer import Ask, session_affinity
from moesim.serving.fleet import Outage
from moesim.serving.metrics import numbers
from moesim.serving.prefixes import Continued
from moesim.step import Batch
from moesim.yamlfile import validate
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, served
from tests.serving.test_laws import COLUMNS

ASK: dict[str, Any] = {
    "number": 60, "arrivals": {"poisson": {"rate": "60/s"}}, "input_length": {"uniform": {"low": 20, "high": 300}},
    "output_length": {"uniform": {"low": 1, "high": 40}},
}  # fmt: skip
TALK: dict[str, Any] = {"turns": {"geometric": 3.0}, "think_time": {"exponential": "30 ms"}}
KIDS: dict[str, Any] = {"number": {"uniform": {"low": 0, "high": 3}}, "input_length": 50, "output_length": 9}


def drawn(sessions: dict[str, Any], seed: int = 1, **changes: Any) -> Requests:
    return validate(RequestsSection, {**ASK, **changes, "sessions": sessions}, lambda keys: "requests").draw(seed)[0]


def due(requests: Requests, book: Book) -> list[list[int]]:
    """Of each request, when what it waits for had happened."""
    follows = requests.follows
    found: list[list[int]] = [[] for _ in range(len(requests))]
    assert follows is not None
    for parent in range(len(requests)):
        for edge in range(follows.begin[parent], follows.begin[parent + 1]):
            at = book.ended[parent] if follows.at_end[edge] else book.sent[parent]
            found[follows.child[edge]].append(int(at))
    return found


def test_a_prompt_is_all_that_was_said_and_what_is_new() -> None:
    asked = drawn({"turns": 3}, number=2, input_length=100, output_length=10)
    assert asked.prompt.tolist() == [100, 100, 210, 320, 210, 320]
    assert asked.follows is not None and asked.follows.turn.tolist() == [0, 0, 1, 2, 1, 2]
    assert asked.follows.session.tolist() == [0, 1, 0, 0, 1, 1] and asked.first == 2


def test_children_go_on_from_their_parents_and_the_next_turn_waits_for_them() -> None:
    """Steps of 1 ms: the child begins with the prompt, and its answer of 6 tokens ends after the parent's of 3."""
    kids = {**KIDS, "number": 1, "begin": "dispatch", "context": "parent", "output_length": 6}
    asked = drawn({"turns": 2, "think_time": "5 ms", "children": kids}, number=1, input_length=100, output_length=3)
    book = served(asked, lambda batch: MS).book
    assert asked.prompt.tolist() == [100, 203, 150, 253]
    assert (book.sent - book.sent[0]).tolist()[2] == 1
    assert book.sent[1] == book.ended[2] + 5 * MS and book.ended[2] > book.ended[0]
    after = drawn({"turns": 2, "children": {**kids, "begin": "end"}}, number=1, input_length=100, output_length=3)
    book = served(after, lambda batch: MS).book
    assert after.prompt.tolist() == [100, 203, 153, 256] and book.sent[2] == book.ended[0] + 1


@pytest.mark.parametrize("begin", ["dispatch", "end"])
@pytest.mark.parametrize("preset", ["vllm", "sglang"])
def test_nothing_begins_before_what_it_waits_for_and_nothing_is_lost(preset: str, begin: str) -> None:
    """At every instant: in the system = waiting + running; not yet due = coming; a request is sent when the last of
    what it waits for has happened and its delay is over, to the picosecond.
    """
    asked = drawn({**TALK, "children": {**KIDS, "begin": begin}})

    def watch(book: Book, replicas: Sequence[Replica], now: int) -> None:
        assert sum(one.load for one in replicas) == book.count(State.WAITING) + book.count(State.RUNNING)
        states = sum(map(book.count, (State.COMING, State.WAITING, State.RUNNING, State.FINISHED)))
        assert states == len(asked)
        coming = book.state == State.COMING
        assert not np.any(coming & (book.sent >= 0) & (book.sent < now))

    book = served(asked, by_tokens, preset, replicas=2, schedulers=2, blocks=400, watch=watch).book
    assert asked.follows is not None and book.count(State.FINISHED) == len(asked)
    for request, happened in enumerate(due(asked, book)):
        if happened:
            assert book.sent[request] == max(happened) + max(int(asked.follows.delay[request]), 1)
        else:
            assert book.sent[request] == asked.arrival[request]


def test_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = drawn({**TALK, "children": KIDS})

    def play() -> Served:
        return served(asked, by_tokens, replicas=2, schedulers=2, blocks=300, balancer="session_affinity")

    whole, _ = in_stretches_and_steps(play, (*COLUMNS, "reused"), monkeypatch)
    assert sum(len(one.history) for one in whole.replicas) < sum(one.steps for one in whole.replicas)


def test_a_turn_finds_what_was_said_before() -> None:
    """All blocks that are full at the end of an answer, whose last token has no KV yet: of 100 + 29 tokens 8 of 16."""
    asked = drawn({"turns": 3}, number=1, input_length=100, output_length=29)
    book = served(asked, lambda batch: MS).book
    assert book.reused.tolist() == [0, 128, (258 - 1) // 16 * 16]
    assert served(asked, lambda batch: MS, prefix_cache=False).book.reused.tolist() == [0, 0, 0]


def test_blocks_are_the_same_where_all_tokens_up_to_their_end_are() -> None:
    """Against texts written out token by token, of requests that go on from random others, or from one of two texts."""
    draw = np.random.default_rng(8)
    n = 60
    base, shared, whole = np.full(n, -1), np.zeros(n, dtype=np.int64), draw.integers(1, 200, n)
    written = [[(n + text, at) for at in range(300)] for text in range(2)]
    texts: list[list[tuple[int, int]]] = []
    for request in range(n):
        base[request] = draw.choice([-1, n, n + 1, *range(request)])
        earlier = (
            written[base[request] - n] if base[request] >= n else texts[base[request]] if base[request] >= 0 else []
        )
        shared[request] = min(draw.integers(0, 150), len(earlier), whole[request])
        own = [(request, at) for at in range(shared[request], whole[request])]
        texts.append([*earlier[: shared[request]], *own])
    found = Continued(base, shared, whole, base)
    known: dict[int, tuple[tuple[int, int], ...]] = {}
    for request in range(n):
        blocks = found.blocks(request, 16)
        assert len(blocks) == whole[request] // 16
        for number, block in enumerate(blocks):
            content = tuple(texts[request][: (number + 1) * 16])
            assert known.setdefault(block, content) == content
    assert len(known) == len(set(known.values()))


def test_what_follows_a_request_that_can_never_run_is_aborted() -> None:
    """100 tokens more with each turn, room for 20 blocks: the third turn, of 330 tokens, is rejected."""
    asked = drawn({"turns": 5}, number=3, input_length=100, output_length=10)
    found = served(asked, lambda batch: MS, blocks=20)
    counts = [found.book.count(state) for state in (State.FINISHED, State.REJECTED, State.ABORTED)]
    assert counts == [6, 3, 6]
    values = {name: value for name, (value, _) in numbers(found, 0, {}).items()}
    assert (values["failed"], values["aborted"], values["sessions_completed"]) == (9, 6, 0)


def test_what_follows_a_lost_request_is_aborted_and_its_client_goes_on() -> None:
    asked = drawn({"turns": 4}, number=12, arrivals={"closed_loop": {"concurrency": 3}})
    dies = Outage(0, 20 * MS, 40 * MS, retry=False)
    book = served(asked, by_tokens, replicas=2, outages=(dies,)).book
    lost, gone = book.count(State.LOST), book.count(State.ABORTED)
    assert lost and gone and book.count(State.FINISHED) == 48 - lost - gone
    assert asked.follows is not None and len(np.unique(asked.follows.session[book.sent >= 0])) == 12


def test_a_closed_loop_has_so_many_sessions_under_way() -> None:
    asked = drawn({**TALK, "children": KIDS}, number=40, arrivals={"closed_loop": {"concurrency": 4}})
    assert asked.follows is not None
    book = served(asked, by_tokens).book
    begin = book.sent[:40]
    end = np.array([book.ended[asked.follows.session == session].max() for session in range(40)])
    under_way = [int(((begin <= at) & (end > at)).sum()) for at in begin]
    assert under_way[3:] == [4] * 37


def test_a_session_stays_with_its_replica() -> None:
    asked = drawn(TALK, number=200)
    assert asked.follows is not None
    hits = {}
    for balancer in ("session_affinity", "round_robin"):
        found = served(asked, by_tokens, replicas=4, balancer=balancer)
        hits[balancer] = found.book.reused.sum()
        if balancer == "session_affinity":
            homes = {(s, r) for s, r in zip(asked.follows.session, found.book.replica, strict=True)}
            assert len(homes) == 200 and len({home for _, home in homes}) == 4
    assert hits["session_affinity"] > 2 * hits["round_robin"]
    assert session_affinity.choose([3, 1], Ask(0), np.random.default_rng(0)) == 1


def test_sessions_begin_with_texts_and_are_of_classes() -> None:
    asked = drawn(
        {"turns": 2}, number=50, prefix={"documents": 1, "share": 0.5},
        classes=[{"name": "a", "share": 0.5, "input_length": 64}, {"name": "b", "share": 0.5, "input_length": 32}],
        output_length=5,
    )  # fmt: skip
    assert asked.classes is not None and asked.prefixes is not None
    first = np.array([64, 32])[asked.classes.kind]
    assert np.array_equal(asked.prompt, np.where(np.arange(100) < 50, first, 2 * first + 5))
    a, b = (int(np.flatnonzero(asked.classes.kind == kind)[0]) for kind in (0, 1))
    assert asked.prefixes.blocks(a, 16)[:1] == asked.prefixes.blocks(b, 16)[:1]
    assert asked.prefixes.blocks(a, 16)[2:3] != asked.prefixes.blocks(b, 16)[2:3]


def test_more_turns_draw_the_same_first_ones() -> None:
    one, many = drawn({"turns": 1}), drawn({"turns": 4})
    assert np.array_equal(one.prompt, many.prompt[:60]) and np.array_equal(one.arrival, many.arrival[:60])


@pytest.mark.parametrize(
    ("sessions", "says"),
    [
        ({"turns": 0}, "greater than or equal to 1"), ({"turns": {"uniform": {"low": 0, "high": 2}}}, "one or more"),
        ({}, "missing, and has no default"), ({"turns": {"uniform": {"low": 3, "high": 2}}}, "above high"),
        ({"turns": 2, "think_time": "-1 s"}, "not negative"), ({"turns": 2, "think_time": {}}, "give one of"),
        ({"turns": 2, "children": {**KIDS, "begin": "start"}}, "'dispatch' or 'end'"),
    ],
)  # fmt: skip
def test_sessions_that_cannot_be_are_refused(sessions: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        drawn(sessions)


def test_steps_of_children_are_batched_beside_their_parents() -> None:
    sizes: list[int] = []

    def step(batch: Batch) -> int:
        sizes.append(len(batch.request))
        return MS

    kids = {**KIDS, "number": 4, "begin": "dispatch"}
    served(drawn({"turns": 1, "children": kids}, number=1, output_length=9), step)
    assert max(sizes) == 5


def test_the_same_columns_without_sessions() -> None:
    """One turn each is what there is without sessions, but that prompts are known as sessions'."""
    plain = validate(RequestsSection, ASK, lambda keys: "requests").draw(1)[0]
    alone = drawn({"turns": 1})
    books = [served(one, by_tokens).book for one in (plain, replace(alone, prefixes=None))]
    for name in COLUMNS:
        assert np.array_equal(*(getattr(book, name) for book in books)), name
