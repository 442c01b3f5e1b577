"""What prompts add to a step takes longer than its kernels; what is there without them does not."""

from __future__ import annotations

import pytest

from moesim.serving import Hosted, engine
from moesim.serving.clock import Given, with_prompts
from moesim.step import Batch, Phase
from moesim.units import LAST_TICK


def hosted(slowdown: float) -> Hosted:
    """Steps of 1,000 ps and 10 ps a token, no host beside them."""
    settings = engine("vllm_dp_ep").model_copy(update={"prompt_slowdown": slowdown, "eager_time_per_layer": 0.0})
    return Hosted(Given(lambda batch: 1000 + 10 * batch.tokens), settings, layers=4, ways=1)


def step(decodes: int, prompt: int) -> Batch:
    """Rows of one rank."""
    queries = [1] * decodes + [prompt] * bool(prompt)
    phases = [Phase.DECODE] * decodes + [Phase.PREFILL] * bool(prompt)
    return Batch.of(1, 0, range(len(queries)), queries, 7, phases)


@pytest.mark.parametrize(
    ("decodes", "prompt", "ps"),
    [(20, 0, 1200), (20, 300, 1200 + 1.5 * 3000), (0, 300, 1.5 * 4000), (1, 1, 1010 + 1.5 * 10)],
)
def test_what_prompts_add_takes_longer(decodes: int, prompt: int, ps: float) -> None:
    assert hosted(1.5).ps(step(decodes, prompt)) == ps
    assert hosted(1.0).ps(step(decodes, prompt)) == 1000 + 10 * (decodes + prompt)


def test_the_clock_is_asked_for_the_decoded_rows_only_where_that_changes_something() -> None:
    assert [len(one.rank) for one in hosted(1.5).asked(step(20, 300))] == [21, 20]
    for slowdown, decodes, prompt in ((1.0, 20, 300), (1.5, 20, 0), (1.5, 0, 300)):
        assert len(hosted(slowdown).asked(step(decodes, prompt))) == 1


@pytest.mark.parametrize("ticks", [10**17, LAST_TICK // 2, LAST_TICK])
def test_a_step_that_is_too_late_for_the_clock_stays_so(ticks: int) -> None:
    """A day at a hundred times as long is no time before it began."""
    assert with_prompts(ticks, 0, 100.0) == LAST_TICK
    assert with_prompts(10**15, 10**14, 100.0) == 10**15 + 99 * 9 * 10**14
