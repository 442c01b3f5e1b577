"""Speculation: how many tokens a step gives, what it computes for them, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.serving import Given, Served, engine
from moesim.serving.metrics import numbers
from moesim.serving.speculation import Drafted, Speculation, spread
from moesim.step import Batch, Phase
from moesim.studies.serving import run_serving
from tests.serving.systems import MS, by_tokens, requests_of, served
from tests.serving.test_laws import crowd


def drafting(drafts: int, rate: float, **changes: Any) -> dict[str, Any]:
    return {"num_speculative_tokens": drafts, "draft_acceptance_rate": rate, "max_num_seqs": 64, **changes}


@pytest.mark.parametrize(("drafts", "rate"), [(1, 0.85), (2, 0.5), (3, 0.7), (5, 0.9)])
def test_tokens_a_step_are_the_closed_form(drafts: int, rate: float) -> None:
    """(1 - a^(k+1)) / (1 - a), within 99.9 % of 200,000 steps."""
    asked = np.arange(200_000)
    given = 1 + Speculation(drafts, rate).right(asked % 1000, asked // 1000)
    assert given.min() == 1 and given.max() == drafts + 1
    assert abs(given.mean() - (1 - rate ** (drafts + 1)) / (1 - rate)) < 3.3 * given.std() / np.sqrt(len(asked))


@pytest.mark.parametrize("drafts", [1, 3])
def test_certain_drafts_give_all_and_hopeless_ones_none(drafts: int) -> None:
    """Steps of 1 ms: a prompt's, then 41 tokens by drafts + 1 a step, or by one; a gap is one of a step."""
    for rate, each in ((1.0, drafts + 1), (0.0, 1)):
        found = served(requests_of(0, 10, 42), lambda batch: MS, **drafting(drafts, rate))
        assert found.book.ended[0] == (1 + -(-41 // each)) * MS
        assert found.book.gaps(0)[0].tolist() == [MS] and found.book.gaps(0)[1].tolist() == [-(-41 // each)]
        values = {name: value for name, (value, _) in numbers(found, 0, {}).items()}
        assert (values["mean_acceptance_length"], values["draft_acceptance_rate"]) == (each, rate)


def test_hopeless_drafts_are_no_faster_than_none() -> None:
    """One by one each is slower; in a crowd their mean is."""

    def times(gap: float, **changes: Any) -> np.ndarray:
        return served(requests_of(*crowd(6, gap=gap)), by_tokens, **changes).book.ended

    assert np.all(times(900.0, **drafting(2, 0.0)) >= times(900.0, max_num_seqs=64))
    assert times(4.0, **drafting(2, 0.0)).mean() > times(4.0, max_num_seqs=64).mean()


@pytest.mark.parametrize("preset", ["vllm", "sglang", "trtllm", "vllm_dp_ep"])
def test_nothing_is_lost_or_made_up(preset: str) -> None:
    """Blocks short, two ranks: all answers are whole, KV is that of all tokens but the last, and blocks come back."""
    sizes: list[int] = []

    def step(batch: Batch) -> int:
        decodes = batch.phase == Phase.DECODE
        assert np.all(batch.query[decodes] == 1)
        sizes.append(int(decodes.sum()))
        rows, many = np.unique(batch.request[decodes], return_counts=True)
        assert np.all(many == 4)
        for request in rows.tolist():
            where = np.sort(batch.context[decodes & (batch.request == request)])
            assert np.all(np.diff(where) == 1)
        return by_tokens(batch)

    found = served(
        requests_of(*crowd(1, n=160, gap=1.0)),
        step,
        preset,
        blocks=75,
        schedulers=2,
        **drafting(3, 0.6, max_num_seqs=24),
    )
    book = found.book
    done = book.ended >= 0
    assert done.sum() + len(found.rejected) == 160 and max(sizes) > 20
    assert np.array_equal(book.emitted[done], book.output[done])
    assert np.array_equal(book.cached[done], (book.prompt + book.output - 1)[done])
    assert preset != "vllm" or book.preempted.sum() > 0


def test_a_request_draws_the_same_in_any_company() -> None:
    """Acceptance is a matter of request and token, not of the batch: alone and in a crowd as many steps."""

    def steps(n: int) -> int:
        found: Served = served(requests_of([0] * n, 10, 300), lambda batch: MS, **drafting(2, 0.5))
        return int(found.book.ended[0])

    assert steps(1) == steps(30)


def test_rows_of_drafts_follow_each_other() -> None:
    columns = (
        np.array([7, 9, 4]),
        np.array([3, 3, 20]),
        np.array([50, 8, 0]),
        np.array([0, 0, 1]),
        np.array([True] * 3),
    )
    request, query, context, phase, emits = spread(columns, 2)
    assert request.tolist() == [7, 7, 7, 9, 9, 9, 4] and query.tolist() == [1] * 6 + [20]
    assert context.tolist() == [50, 51, 52, 8, 9, 10, 0] and phase.tolist() == [0] * 6 + [1] and emits.all()


def test_drafting_takes_passes_of_a_layer_and_heads() -> None:
    """20 layers of 10 ns a token, a head of 7 ns a row, 100 ns of host: two requests with 2 drafts each, and a prompt
    of 30 tokens: one pass over 36 tokens, one over 3, two heads of 3 rows.
    """

    def head(batch: Batch) -> int:
        return 7_000 * int(batch.head_rows.sum())

    base = Given(lambda batch: 100_000 + 10_000 * 20 * batch.tokens + head(batch))
    clock = Drafted(base, 2, 1 / 20, 100_000, head)
    request, position = [0, 0, 0, 1, 1, 1, 2], [5, 6, 7, 9, 10, 11, 0]
    batch = Batch.of(1, 0, request, [1] * 6 + [30], position, [0] * 6 + [Phase.PREFILL])
    assert clock.ps(batch) == base.ps(batch) + 10_000 * 36 + 10_000 * 3 + 2 * 7_000 * 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (drafting(2, 1.5), "draft_acceptance_rate"), (drafting(-1, 0.5), "num_speculative_tokens"),
        ({"num_speculative_tokens": 2, "max_num_seqs": 64}, "needs draft_acceptance_rate"),
        (drafting(16, 0.5), "fewer than block_size"), (drafting(7, 0.5, max_num_seqs=2000), "/ 8"),
        (drafting(1, 0.5, draft_layers=-1.0), "draft_layers"),
    ],
)  # fmt: skip
def test_drafts_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        engine("vllm", **changes)


def test_who_does_not_fit_for_its_drafts_is_told_so() -> None:
    """One block: 12 + 4 tokens fill it, and two drafts do not fit any more."""
    found = served(requests_of([0, 0], [12, 10], 4), by_tokens, blocks=1, **drafting(2, 0.5))
    assert found.rejected == {0: "12 + 4 tokens + 2 drafts, the KV cache holds 16"}


def test_a_rate_without_drafts_is_said_to_act_on_nothing() -> None:
    small = ("model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "requests.number=4")
    found = run_serving("qwen3-serve", overrides=(*small, "scheduler.draft_acceptance_rate=0.8"))
    assert [note for note in found.warnings if note.startswith("scheduler.draft_acceptance_rate acts on nothing")]
