"""Operators on the CPU: what they compute is checked against references, and a wrong result is noticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.plan import PlanSection, load_plan
from moesim.calibration.measure.target import find_target
from moesim.calibration.operators import OPERATORS
from moesim.calibration.operators.all_to_all import Exchange
from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.layer import Layer
from moesim.calibration.operators.operator import Place, WrongResult, expect_close
from moesim.calibration.ops import find_op
from moesim.calibration.records import FIELDS
from moesim.calibration.routed import Routed, route
from moesim.errors import BadInput

ALONE = Place(find_target("cpu"), Peers())
SMALL = load_plan("cpu-smoke")
HERE = [name for name, one in OPERATORS.items() if one.least_world == 1 and not one.refuses(ALONE.target)]


def small(**changes: object) -> PlanSection:
    return SMALL.model_copy(update={"tokens": (5,), "sizes": (4096,), "dtypes": ("fp32", "bf16"), **changes})


@pytest.mark.parametrize("name", HERE)
def test_every_operator_that_runs_alone_gives_the_right_result(name: str) -> None:
    models = ("deepseek-ai/DeepSeek-V3",) if name.startswith("mla") else ("tiny-moe",)
    backends = ("math",) if name.startswith("mla") else ("flash", "math")
    cases = list(OPERATORS[name].cases(small(models=models, contexts=(8,), sdpa=backends), 1))
    assert cases
    for case in cases:
        prepared = OPERATORS[name].prepare(case, ALONE)
        with prepared.within():
            prepared.check(prepared.call())
        assert prepared.bytes > 0


@pytest.mark.parametrize("name", OPERATORS)
def test_cases_speak_the_language_of_records(name: str) -> None:
    models = ("deepseek-ai/DeepSeek-V3",) if name.startswith("mla") else ("tiny-moe",)
    plan = small(models=models, dtypes=("bf16", "fp8"), sdpa=("math",))
    case = next(iter(OPERATORS[name].cases(plan, 2)))
    assert set(case.row(0)) <= set(FIELDS)
    assert case.operator == name and find_op(case.op)


def test_a_kernel_that_is_off_is_noticed() -> None:
    case = next(iter(OPERATORS["grouped_gemm"].cases(small(), 1)))
    prepared = OPERATORS["grouped_gemm"].prepare(case, ALONE)
    found = prepared.call()
    found[0, 0] += found.abs().max()
    with pytest.raises(WrongResult, match="of the largest value"):
        prepared.check(found)


def test_experts_without_rows_are_no_trouble() -> None:
    columns = shape(hidden=8, inter=4, matrices=3, tp=1)
    for sizes in ((0, 3, 0), (0, 0, 0)):
        case = Case("grouped_gemm_loop", "grouped_gemm", "fp32", columns, group_sizes=(sizes,))
        for name in ("grouped_gemm", "grouped_gemm_loop"):
            prepared = OPERATORS[name].prepare(replace(case, operator=name), ALONE)
            prepared.check(prepared.call())


def test_a_layer_on_one_rank_is_the_sum_over_its_experts() -> None:
    case = next(iter(OPERATORS["moe_layer"].cases(small(dtypes=("fp32",)), 1)))
    prepared = OPERATORS["moe_layer"].prepare(case, ALONE)
    found = prepared.call()
    prepared.check(found)
    assert found.shape == (case["tokens"], case["hidden"])


def test_rows_arrive_sorted_by_source_and_expert() -> None:
    routed = Routed(np.array([[[0, 3]], [[1, 3]]]), 4)  # one token on each of two ranks; experts 0, 1 | 2, 3
    assert routed.split_matrix == ((1, 1), (1, 1))
    assert routed.group_sizes == ((1, 1), (0, 2))
    columns = shape(hidden=2, inter=2, matrices=3, tp=1)
    case = Case("moe_layer", "moe_layer", "fp32", columns, group_sizes=routed.group_sizes)
    experts = Experts.of(case, ALONE, dtype="fp32", sizes=case.sizes(0))
    swapped = Routed(routed.expert[::-1], 4)  # rank 0's token goes to experts 1 and 3 now
    assert Layer.of(routed, 0, experts, torch.ones(1, 2), loop=True).sorting.tolist() == [0, 1]
    assert Layer.of(swapped, 0, experts, torch.ones(1, 2), loop=True).sorting.tolist() == [1, 0]


@pytest.mark.parametrize("distribution", ["balanced", "trace:tiny-moe", "sampled:prefill-sharegpt"])
def test_routing_loses_no_row(distribution: str) -> None:
    from moesim.routing.synth.statistics import statistics_names

    name = f"sampled:{statistics_names()[0]}" if distribution.startswith("sampled") else distribution
    routed = route(name, 64, 4, 4, 50)
    assert sum(map(sum, routed.split_matrix)) == sum(map(sum, routed.group_sizes)) == 4 * 50 * 4
    assert [sum(sizes) for sizes in routed.group_sizes] == np.array(routed.split_matrix).sum(axis=0).tolist()


def test_recorded_routing_is_skewed_and_repeats() -> None:
    first, again = (route("trace:tiny-moe", 32, 4, 1, 256).rows for _ in range(2))
    assert (first == again).all()
    assert first.max() > 2 * first.mean()


def test_unknown_routing_names_the_known() -> None:
    with pytest.raises(BadInput, match="trace:NAME"):
        route("zipf", 32, 4, 1, 8)
    with pytest.raises(BadInput, match="tiny-moe"):
        route("trace:tiny", 32, 4, 1, 8)


def test_what_two_ranks_would_exchange_matches_the_matrix() -> None:
    case = Case("all_to_all", "all_to_all", "fp32", shape(hidden=3), split_matrix=((1, 2), (0, 4)))
    ranks = [Exchange(case, Place(ALONE.target, Peers(rank, 2))) for rank in range(2)]
    assert [len(one.sent) for one in ranks] == [3, 4] and [len(one.received) for one in ranks] == [1, 6]
    ranks[1].check(torch.tensor([1.0] * 2 + [17.0] * 4).unsqueeze(1).expand(6, 3))
    with pytest.raises(WrongResult):
        ranks[1].check(torch.zeros(6, 3))


def test_no_fp8_on_a_cpu() -> None:
    assert "fp8" in OPERATORS["grouped_gemm_fp8"].refuses(ALONE.target)


def test_shapes_must_agree() -> None:
    with pytest.raises(WrongResult, match="shape"):
        expect_close(torch.zeros(2, 3), torch.zeros(3, 2))


def test_experts_are_timed_as_bare_gemms() -> None:
    """Into the wide space, gate and value at once, and back: the FLOPs of a whole FFN of three matrices."""
    up, down, *_ = OPERATORS["grouped_gemm"].cases(small(dtypes=("fp32",), routing=("balanced",)), 1)
    hidden, inter = down["inter"], down["hidden"]
    assert (up["hidden"], up["inter"]) == (hidden, 2 * inter) and up["matrices"] == down["matrices"] == 1
    flops = [OPERATORS["grouped_gemm"].prepare(case, ALONE).flops for case in (up, down)]
    assert sum(flops) == 2 * 3 * hidden * inter * sum(up.sizes(0))


def test_the_activation_is_one_kernel_of_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def kept(function: Any, **how: object) -> Any:
        asked.append((function.__name__, how))
        return function

    monkeypatch.setattr(torch, "compile", kept)
    case = next(iter(OPERATORS["activation"].cases(small(dtypes=("bf16",)), 1)))
    prepared = OPERATORS["activation"].prepare(case, ALONE)
    found = prepared.call()
    prepared.check(found)
    assert asked == [("activate", {"dynamic": True})]
    assert case["bytes"] == 2 * found.numel() * 3  # two wide rows in, one out
    assert OPERATORS["activation"].refuses(ALONE.target) == "triton runs on GPUs only"


def test_copies_go_both_ways_from_pinned_and_pageable_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory needs CUDA: here it is only asked for."""
    plan = small(device="cuda")
    for name in ("copy_h2d", "copy_d2h"):
        assert [case.kernel for case in OPERATORS[name].cases(plan, 1)] == ["torch_copy_pinned", "torch_copy_pageable"]
        assert [case.kernel for case in OPERATORS[name].cases(small(), 1)] == ["torch_copy_pageable"]
    asked: list[bool] = []

    def unpinned(plain: Any) -> Any:
        def make(*size: Any, pin_memory: bool = False, **how: Any) -> Any:
            asked.append(pin_memory)
            return plain(*size, **how)

        return make

    for made in ("randint", "zeros"):
        monkeypatch.setattr(torch, made, unpinned(getattr(torch, made)))
    pinned, pageable = OPERATORS["copy_d2h"].cases(plan, 1)
    for case in (pinned, pageable):
        prepared = OPERATORS["copy_d2h"].prepare(case, ALONE)
        prepared.check(prepared.call())
    assert asked == [True, False, True, False, False, False]  # the host's two buffers, and the device's between
