"""Classes of requests: who they are, who is served first, and whose limits count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from moesim.serving import Requests, RequestsSection, Served
from moesim.serving.classes import Classes
from moesim.serving.metrics import numbers
from moesim.yamlfile import validate
from tests.serving.systems import MS, by_tokens, in_stretches_and_steps, requests_of, served
from tests.serving.test_laws import COLUMNS, crowd

BASE: dict[str, Any] = {
    "number": 4000, "arrivals": {"poisson": {"rate": "9/s"}}, "input_length": 50, "output_length": {"uniform": {
        "low": 3, "high": 9}},
}  # fmt: skip


def drawn(*classes: dict[str, Any], **changes: Any) -> Requests:
    return validate(RequestsSection, {**BASE, **changes, "classes": list(classes)}, lambda keys: "requests").draw(3)[0]


def of_kinds(requests: Requests, kind: npt.ArrayLike, priorities: tuple[int, ...], **limits: float) -> Requests:
    names = tuple("abc"[: len(priorities)])
    own = (dict(limits), *[None] * (len(priorities) - 1))
    return replace(requests, classes=Classes(np.asarray(kind, dtype=np.int64), names, priorities, own))


def test_shares_divide_the_arrivals_and_move_no_other_draw() -> None:
    plain = drawn()
    asked = drawn({"name": "chat", "share": 0.7}, {"name": "code", "share": 0.3, "input_length": 80})
    assert asked.classes is not None
    code = asked.classes.kind == 1
    assert abs(code.mean() - 0.3) < 3.3 * np.sqrt(0.21 / 4000)
    assert np.array_equal(asked.arrival, plain.arrival) and np.array_equal(asked.output, plain.output)
    assert np.array_equal(asked.prompt, np.where(code, 80, 50))


def test_arrivals_of_its_own_come_beside_the_others() -> None:
    probe = {"name": "probe", "arrivals": {"burst": {"size": 1, "every": "1 s"}}, "number": 50, "input_length": 1,
             "output_length": 1}  # fmt: skip
    asked = drawn({"name": "chat", "share": 1.0}, probe)
    assert asked.classes is not None and len(asked) == 4050
    mine = asked.classes.kind == 1
    assert np.array_equal(asked.arrival[mine], np.arange(50) * 1000 * MS)
    assert np.array_equal(asked.arrival[~mine], drawn().arrival)
    assert set(asked.prompt[mine]) == {1} and set(asked.prompt[~mine]) == {50}


def test_prompts_of_lengths_of_their_own_share_nothing_and_that_is_said() -> None:
    replayed = {"number": 20, "arrivals": {"replay": {"file": "mooncake-synthetic"}}}
    kinds = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "input_length": 90}]
    for changes, shares in (({}, True), ({"input_length": 90}, False), ({"classes": kinds}, False)):
        requests, notes = RequestsSection.model_validate({**replayed, **changes}).draw(0)
        assert (requests.prefixes is not None) == shares
        assert [note for note in notes if "what its prompts share is left out" in note] or shares


def test_a_server_with_priorities_waits_as_cobham_says() -> None:
    """W1 = W0 / (1 - rho1), W2 = W1 / (1 - rho), W0 = rho services of the one that is served (Cobham 1954): means of 25
    runs of 1,000 within 99.9 % of their spread.
    """
    rho, mean, n, runs = 0.6, 10_000, 1000, 25
    found = []
    for seed in range(runs):
        draw = np.random.default_rng([seed, 77])
        service = np.maximum(np.rint(draw.exponential(mean, n)).astype(int), 1)
        arrivals = np.rint(np.cumsum(draw.exponential(mean / rho, n)) * 10**6).astype(int)
        kind = draw.integers(0, 2, n)
        book = served(
            of_kinds(requests_of(arrivals, service, 1), kind, (7, -1)), lambda batch: int(batch.query.sum()) * 10**6,
            policy="whole_prompts", reserved_output=1.0, max_num_seqs=1, max_num_batched_tokens=1 << 22,
            block_size=1 << 14, scheduling_policy="priority",
        ).book  # fmt: skip
        waits = (book.started - book.sent) / MS
        found.append([waits[kind == 1].mean(), waits[kind == 0].mean()])
    first = rho * mean / 1000 / (1 - rho / 2)
    half = 3.745 * np.std(found, axis=0, ddof=1) / np.sqrt(runs)
    assert np.all(np.abs(np.mean(found, axis=0) - [first, first / (1 - rho)]) < half + 0.01 * first)


def test_the_last_by_priority_is_preempted_first() -> None:
    """Six blocks, two requests of three each that need a fourth: the less important loses its cache, though it came
    first; without priorities the last that came does.
    """
    asked = of_kinds(requests_of([0, 0], 47, 20), [0, 1], (5, 0))
    for policy, preempted in (("priority", [1, 0]), ("fcfs", [0, 1])):
        assert served(asked, by_tokens, blocks=6, scheduling_policy=policy).book.preempted.tolist() == preempted


def test_who_is_first_by_priority_is_first_from_the_queue() -> None:
    """One seat; of five that wait, priorities 3, 1, 2, 1, 3 in order of arrival."""
    asked = of_kinds(requests_of([0, 1, 2, 3, 4, 5], 10, 2), [0, 2, 0, 1, 0, 2], (1, 2, 3))
    book = served(asked, lambda batch: MS, max_num_seqs=1, scheduling_policy="priority").book
    assert np.argsort(book.started).tolist() == [0, 2, 4, 3, 1, 5]


def test_one_priority_is_none_also_where_all_come_at_once() -> None:
    """Few blocks: who was preempted is in front of those who came at the same time and have not begun."""
    asked = requests_of(np.zeros(40), 40 + 7 * np.arange(40) % 130, 5 + 11 * np.arange(40) % 47)
    alike = of_kinds(asked, np.arange(40) % 2, (3, 3))
    one, other = (served(alike, by_tokens, blocks=36, scheduling_policy=name).book for name in ("priority", "fcfs"))
    assert one.preempted.sum() > 0
    for name in set(COLUMNS):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


def test_each_class_has_its_own_limits() -> None:
    """Steps of 1 ms, one seat: answers of three tokens end 3, 6, 9 ms later; class a has 4 ms, b 7."""
    asked = of_kinds(requests_of([0, 0, 0], 10, 3), [0, 1, 1], (0, 0), e2el=4e-3)
    found = numbers(served(asked, lambda batch: MS, max_num_seqs=1), 0, {"e2el": 7e-3})
    values = {name: value for name, (value, _) in found.items()}
    assert [round(values[f"{name}request_goodput"] * 9e-3, 9) for name in ("", "class_a_", "class_b_")] == [2, 1, 1]
    assert (values["class_a_completed"], values["class_b_completed"]) == (1, 2)
    assert values["class_b_mean_e2el_ms"] == pytest.approx(7.5)


@pytest.mark.parametrize("blocks", [90, 10**6])
def test_stretches_change_nothing_and_nothing_is_lost(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = np.random.default_rng(4).integers(0, 3, 120)

    def play() -> Served:
        asked = of_kinds(requests_of(*crowd(3, n=120, gap=9.0)), kind, (2, 0, 1))
        return served(asked, by_tokens, blocks=blocks, schedulers=2, max_num_seqs=16, scheduling_policy="priority")

    whole, _ = in_stretches_and_steps(play, COLUMNS, monkeypatch)
    assert np.array_equal(whole.book.emitted, whole.book.output)
    assert (whole.book.preempted.sum() > 0) == (blocks == 90)
