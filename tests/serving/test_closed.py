"""The compiled closed loop is `serve` with a Replica on the same clock, to the tick, whatever the engine does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.serving import Book, Hosted, Replica, Requests, Scheduler, engine, serve
from moesim.serving.closed import serve_closed
from moesim.serving.tabled import Tabled
from moesim.step.pace import Pace
from moesim.studies import load
from moesim.studies.build import build
from tests.serving.test_tabled import ALL_IN_ONE, EACH_ITS_OWN

COSTLY = {"eager_time_per_layer": 2e-4, "prompt_slowdown": 1.3, "frontend_time": 3e-3}
FULL = 100000
ENGINES: list[tuple[str, int, dict[str, Any]]] = [
    ("vllm", FULL, {}),
    ("vllm", FULL, {"max_num_batched_tokens": 300, "max_num_seqs": 5, **COSTLY}),
    ("vllm", 80, {"graph_tokens": 100, "graph_batch": 3, **COSTLY}),  # evictions
    ("vllm", 80, {"schedule_ahead": False}),
    ("sglang", FULL, {"poll_interval": 7, **COSTLY}),
    ("sglang", 20, {"max_num_batched_tokens": 300, "reserved_output": 0.0}),
    ("trtllm", FULL, {}),
    ("trtllm", 60, {"balance_timeout": 7, "balance_wait": 2}),
    ("vllm", FULL, {"balance_timeout": 9, "max_num_batched_tokens": 300, "max_num_seqs": 6}),
    ("trtllm", 40, {"max_num_batched_tokens": 700, **COSTLY}),
    ("trtllm", FULL, {"schedule_ahead": False, "max_num_seqs": 3}),
]


@pytest.fixture(scope="module")
def clock() -> Tabled:
    plan = replace(build(load("demo-qwen3", ALL_IN_ONE), 0).plan, host_seconds=0.0)
    return Tabled(plan, Pace(plan))


def requests(number: int = 60, clients: int = 9) -> Requests:
    draw = np.random.default_rng(number)
    prompt, output = draw.integers(100, 600, number), draw.integers(1, 60, number)
    return Requests(np.zeros(number, dtype=np.int64), prompt, output, clients)


@pytest.fixture(scope="module")
def apart() -> Tabled:
    """Each rank attends to its own requests, and waits for the others."""
    plan = replace(build(load("demo-qwen3", EACH_ITS_OWN), 0).plan, host_seconds=0.0)
    return Tabled(plan, Pace(plan))


@pytest.mark.parametrize("which", ["clock", "apart"])
@pytest.mark.parametrize(("preset", "blocks", "changes"), ENGINES)
def test_is_the_loop_to_the_tick(
    which: str, preset: str, blocks: int, changes: dict[str, Any], request: pytest.FixtureRequest
) -> None:  # fmt: skip
    clock: Tabled = request.getfixturevalue(which)
    settings = engine(preset, **{key: value for key, value in changes.items() if key not in COSTLY})
    settings = settings.model_copy(update={"host_time": 0.0, "prefix_cache": False, **dict.fromkeys(COSTLY, 0.0)})
    settings = settings.model_copy(update={"prompt_slowdown": 1.0, **changes})
    asked = requests(clients=9 * clock.schedulers)

    def make(book: Book) -> list[Replica]:
        ways = clock.plan.layout.tensor_parallel
        hosted = Hosted(clock, settings, clock.plan.model.num_layers, ways)
        schedulers = [Scheduler(settings, book, blocks) for _ in range(clock.schedulers)]
        return [Replica(schedulers, hosted, ways, ahead=settings.schedule_ahead)]

    loop = serve(asked, make, front=round(settings.frontend_time * 1e12))
    found = serve_closed(asked, settings, blocks, clock)
    for column in ("sent", "first", "ended"):
        assert getattr(found, column).tolist() == getattr(loop.book, column).tolist(), column
    assert (found.steps, found.evictions) == (loop.replicas[0].steps, int(loop.book.preempted.sum()))
    assert found.evictions > 0 or blocks == FULL or preset == "trtllm" or which == "apart"


def test_time_of_the_host_is_that_of_the_settings(clock: Tabled) -> None:
    """One client, answers of three tokens: three steps each."""
    asked = requests(4, 1)
    asked = replace(asked, output=np.full(4, 3))
    settings = engine("vllm").model_copy(update={"host_time": 0.0, "prompt_slowdown": 1.0})
    without = serve_closed(asked, settings, FULL, clock)
    found = serve_closed(asked, settings.model_copy(update={"host_time": 1e-3}), FULL, clock)
    assert (found.ended[-1] - without.ended[-1]) == 4 * 3 * 10**9


def test_who_can_never_run_is_refused(clock: Tabled) -> None:
    with pytest.raises(BadInput, match="the KV cache holds 160"):
        serve_closed(requests(), engine("vllm"), 10, clock)
    with pytest.raises(BadInput, match="prompts are not cut"):
        serve_closed(requests(), engine("trtllm", max_num_batched_tokens=512), FULL, clock)
