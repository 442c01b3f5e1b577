"""Tables say what their CostModel says, to the last bit, in whatever order and company shapes are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moesim.costs import CostModel, Estimate, Roofline, Tables, load_costs
from moesim.hardware import load_cluster
from moesim.models import load_model

H100 = load_cluster("dgx-h100").devices[0]
GQA, MLA = (load_model(name).attention for name in ("Qwen/Qwen3-235B-A22B", "deepseek-ai/DeepSeek-V3"))
DRAW = np.random.default_rng(7)
SIZES = DRAW.geometric(0.02, (40, 16)) * (DRAW.random((40, 16)) < 0.8)
QUESTIONS: dict[str, Callable[[CostModel, Any], Estimate]] = {
    "gemm": lambda costs, rows: costs.gemm(rows[:, 0] * 3, 9216, 4096, "fp8"),
    "experts": lambda costs, rows: costs.experts(rows, 4096, 1536, "bf16", 3),
    "gathered": lambda costs, rows: costs.experts(rows, 4096, 1536, "bf16", 3, rows.sum(axis=1) * 8),
    "decode": lambda costs, rows: costs.attention("decode", 1, rows[:, 0] * 17, rows[:, 1] % 60, GQA, 64, "bf16"),
    "prefill": lambda costs, rows: costs.attention("prefill", rows[:, 0], rows[:, 1], 3, MLA, 128, "bf16"),
    "elementwise": lambda costs, rows: costs.elementwise(rows[:, 0] * 4096),
}


@pytest.fixture(params=["h100_sxm", "roofline"], scope="module")
def costs(request: pytest.FixtureRequest) -> CostModel:
    return load_costs(request.param, H100)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_table_is_its_cost_model(costs: CostModel, question: str) -> None:
    ask, tables = QUESTIONS[question], Tables(costs)
    plain = ask(costs, SIZES)
    for rows in (SIZES[::-1], SIZES[5:9], SIZES):
        found = ask(tables, rows)
    assert np.array_equal(found.seconds, plain.seconds) and np.array_equal(found.outside, plain.outside)
    assert np.array_equal(found.flops, plain.flops) and np.array_equal(found.bytes, plain.bytes)
    assert (found.family, found.basis, found.kernel) == (plain.family, plain.basis, plain.kernel)


def test_millions_of_rows_are_priced_as_they_are(costs: CostModel) -> None:
    """2.2 million on 17 experts: 22 bits of them, all that a key has room for."""
    rows = 130_000 + np.arange(51).reshape(3, 17)
    tables, plain = Tables(costs), costs.experts(rows, 4096, 1536, "bf16", 3)
    for _ in range(2):
        assert np.array_equal(tables.experts(rows, 4096, 1536, "bf16", 3).seconds, plain.seconds)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_price_does_not_depend_on_the_company_it_was_asked_in(costs: CostModel, question: str) -> None:
    ask, together = QUESTIONS[question], QUESTIONS[question](Tables(costs), SIZES)
    alone = [ask(Tables(costs), SIZES[row : row + 1]).seconds[0] for row in range(len(SIZES))]
    assert np.array_equal(together.seconds, alone)


def test_a_shape_is_asked_for_once() -> None:
    asked: list[int] = []

    class Counted(Roofline):
        def gemm(self, m: Any, n: int, k: int, dtype: str) -> Estimate:
            asked.append(np.size(m))
            return super().gemm(m, n, k, dtype)

    tables = Tables(Counted(H100, ()))
    for rows in ([3, 70], [3], [70, 69], [64]):
        tables.gemm(np.array(rows), 512, 512, "bf16")
    assert asked == [128]


def test_sizes_beyond_a_table_are_asked_for_and_not_kept() -> None:
    costs = load_costs("h100_sxm", H100)
    rows = np.full((2, 16), 1 << 19)
    found = Tables(costs).experts(rows, 4096, 1536, "bf16", 3)
    assert np.array_equal(found.seconds, costs.experts(rows, 4096, 1536, "bf16", 3).seconds)
