"""DeepEP's kernels, called as its documentation says: a stand-in keeps one rank's rows where they are."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from moesim.calibration.deepep import exchanges, fit, nvlink_bytes, predicted
from moesim.calibration.measure import attempt as attempts
from moesim.calibration.measure.attempt import attempt
from moesim.calibration.measure.case import Case
from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.plan import PlanSection, SamplingSection, load_plan
from moesim.calibration.measure.target import find_target
from moesim.calibration.operators import OPERATORS, deepep_low_latency
from moesim.calibration.operators.deepep import FP8_LIMIT, in_blocks, widened
from moesim.calibration.operators.operator import Place, WrongResult, expect_close
from moesim.calibration.records import Records, join, records_of

ALONE = Place(find_target("cpu"), Peers())
QUICK = SamplingSection.model_validate({"warm_up": "0 s", "stable": 0.5, "least": 3, "most": 20, "per_case": "10 ms"})
PLAN = load_plan("cpu-smoke").model_copy(
    update={"sampling": QUICK, "models": ("Qwen/Qwen3-30B-A3B",), "dtypes": ("bf16", "fp8"), "routing": ("balanced",)}
)
NAMES = ("deepep_dispatch", "deepep_combine", "deepep_low_latency_dispatch", "deepep_low_latency_combine")


class Buffer:
    """One rank, which has all experts. Low-latency rows lie in [experts, slots, hidden], in fp8 with scales."""

    num_sms = 20
    said: ClassVar[list[str]] = []
    made: ClassVar[dict[str, Any]] = {}

    def __init__(self, group: Any, nvlink: int, rdma: int, **mode: Any) -> None:
        Buffer.made = {"group": group, "nvlink": nvlink, "rdma": rdma, **mode}
        self.said.clear()

    @staticmethod
    def get_dispatch_config(ranks: int) -> Any:
        return types.SimpleNamespace(
            get_nvl_buffer_size_hint=lambda row, n: row * n, get_rdma_buffer_size_hint=lambda row, n: 0
        )

    get_combine_config = get_dispatch_config

    @staticmethod
    def get_low_latency_rdma_size_hint(most: int, hidden: int, ranks: int, experts: int) -> int:
        return most * hidden * ranks * experts

    def get_dispatch_layout(self, chosen: torch.Tensor, experts: int) -> Any:
        here = torch.ones(len(chosen), 1, dtype=torch.bool)
        return here.sum(0), None, torch.bincount(chosen.flatten(), minlength=experts), here, None

    def dispatch(self, x: Any, **layout: Any) -> Any:
        assert set(layout) == {
            "topk_idx", "topk_weights", "num_tokens_per_rank", "num_tokens_per_rdma_rank", "is_token_in_rank",
            "num_tokens_per_expert",
        }  # fmt: skip
        self.said.append("dispatch fp8" if isinstance(x, tuple) else "dispatch bf16")
        return x, layout["topk_idx"], layout["topk_weights"], [], "handle", None

    def combine(self, x: torch.Tensor, handle: str) -> Any:
        assert handle == "handle" and x.dtype == torch.bfloat16
        self.said.append("combine")
        return x, None, None

    def low_latency_dispatch(self, x: Any, chosen: Any, most: int, experts: int, *, use_fp8: bool) -> Any:
        assert len(x) <= most
        self.said.append("dispatch")
        rows = x.new_zeros(experts, most, x.shape[1])
        slot = [[int((chosen[:t] == e).sum()) for e in chosen[t].tolist()] for t in range(len(x))]
        rows[chosen, torch.tensor(slot)] = x.unsqueeze(1).expand(-1, chosen.shape[1], -1)
        handle = (chosen, torch.tensor(slot))
        return in_blocks(rows) if use_fp8 else rows, torch.bincount(chosen.flatten()), handle, None, lambda: None

    def low_latency_combine(self, x: Any, chosen: Any, weight: Any, handle: Any) -> Any:
        self.said.append("combine")
        return (x[handle].float() * weight.unsqueeze(-1)).sum(1).to(torch.bfloat16), None, lambda: None


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("deep_ep")
    module.__spec__ = importlib.machinery.ModuleSpec("deep_ep", None)
    module.Buffer = Buffer
    monkeypatch.setitem(sys.modules, "deep_ep", module)


def cases(name: str, **changes: Any) -> list[Case]:
    plan: PlanSection = PLAN.model_copy(update={"tokens": (4,), **changes})
    return list(OPERATORS[name].cases(plan, 1))


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back_is_what_was_sent(name: str) -> None:
    for case in cases(name):
        taken = attempt(case, ALONE, PLAN, 0.01)
        assert taken.label == "ok" and len(taken.samples) >= 3
        assert taken.columns.get("sms", 0) == (0 if "low_latency" in name else 20)


def test_rows_are_dispatched_in_both_dtypes_and_combined_in_bf16() -> None:
    assert [case.dtype for case in cases("deepep_dispatch")] == ["bf16", "fp8"]
    assert [case.dtype for case in cases("deepep_low_latency_combine")] == ["bf16"]
    attempt(cases("deepep_dispatch")[1], ALONE, PLAN, 0.01)
    assert "dispatch fp8" in Buffer.said and "dispatch bf16" not in Buffer.said


@pytest.mark.parametrize("name", NAMES[2:])
def test_low_latency_kernels_take_turns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two buffers: never two dispatches or two combines in a row; only one of both is inside the time."""
    timed: list[int] = []
    plain = type(ALONE.target).seconds

    def seconds(target: Any, call: Any, *, cold: bool, hold: Any) -> float:
        hold()
        timed.append(len(Buffer.said))
        found = plain(target, call, cold=cold, hold=None)
        timed.append(len(Buffer.said))
        return found

    monkeypatch.setattr(type(ALONE.target), "seconds", seconds)
    attempt(cases(name)[0], ALONE, PLAN, 0.01)
    assert {a != b for a, b in zip(Buffer.said, Buffer.said[1:], strict=False)} == {True}
    starts, ends = timed[::2], timed[1::2]
    assert {end - start for start, end in zip(starts, ends, strict=True)} == {1}
    assert {Buffer.said[start] for start in starts} == {name.rpartition("_")[2]}


def test_the_low_latency_buffer_is_made_for_its_slots() -> None:
    case = cases("deepep_low_latency_dispatch")[0]
    attempt(case, ALONE, PLAN, 0.01)
    assert Buffer.made == {"group": None, "nvlink": 0, "rdma": deepep_low_latency.MOST * case["hidden"] * 128,
                           "low_latency_mode": True, "num_qps_per_rank": 128}  # fmt: skip
    assert not cases("deepep_low_latency_dispatch", tokens=(deepep_low_latency.MOST + 1,))
    assert cases("deepep_dispatch", tokens=(deepep_low_latency.MOST + 1,))


def test_a_row_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Buffer, "low_latency_combine", lambda self, x, chosen, *_: (x[0, : len(chosen)] * 0, None, None)
    )
    with pytest.raises(attempts.Failed, match="wrong result: off by"):
        attempt(cases("deepep_low_latency_combine")[0], ALONE, PLAN, 0.01)


def test_quantised_rows_are_within_a_sixteenth() -> None:
    rows = torch.randn(7, 256, dtype=torch.bfloat16)
    values, scale = in_blocks(rows)
    assert values.dtype == torch.float8_e4m3fn and scale.shape == (7, 2)
    off = (widened((values, scale)).float() - rows.float()).abs()
    assert bool((off <= rows.float().abs() / 14 + 1e-2).all())
    with pytest.raises(WrongResult):
        expect_close(widened((values, scale)) * 1.2, rows.float(), limit=FP8_LIMIT)


def _rows(kernel: str, dtype: str, op: str, seconds: Any = None, **more: Any) -> Records:
    row = {"run": "r", "device": "d", "device_class": "cuda", "op": op, "backend": "deepep", "kernel": kernel,
           "dtype": dtype, "hidden": 7168, "topk": 8, "experts": 256, "world": 8, "sms": 20} | more  # fmt: skip
    tokens = [16, 64, 256, 1024, 4096]
    return records_of([row | {"tokens": t, "samples": [1e-5 if seconds is None else seconds[n]]}
                       for n, t in enumerate(tokens)])  # fmt: skip


def test_bytes_of_a_dispatch_go_with_its_dtype() -> None:
    """By hand: a low-latency row of 7,168 values is 14,336 B in bf16, 7,168 + 4 x 56 B in fp8, 16 B of header with
    both; 8 copies of each token, 7 of 8 leave the GPU.
    """
    wide, narrow = (nvlink_bytes(_rows("deepep_low_latency", d, "dispatch")) for d in ("bf16", "fp8"))
    assert wide[0] == 16 * 8 * 7 / 8 * (14336 + 16) and narrow[0] == 16 * 8 * 7 / 8 * (7168 + 4 * 56 + 16)
    wide, narrow = (nvlink_bytes(_rows("deepep_normal", d, "dispatch")) for d in ("bf16", "fp8"))
    assert wide / narrow == pytest.approx(2 / (1 + 4 / 128))


def test_own_rows_of_both_dtypes_give_one_rate() -> None:
    """Rows made with 20 us and 300 of 450 GB/s are fitted by these, whatever they were sent in; skewed are not read."""
    parts = [("bf16", "dispatch"), ("fp8", "dispatch"), ("bf16", "combine")]
    blank = [_rows("deepep_normal", dtype, op) for dtype, op in parts]
    made = [_rows("deepep_normal", *part, seconds=predicted(rows, 450e9, 20e-6, 300 / 450, 1e12))
            for part, rows in zip(parts, blank, strict=True)]  # fmt: skip
    skewed = _rows("deepep_normal", "bf16", "dispatch", seconds=np.ones(5), distribution="trace:tiny-moe")
    rows = exchanges(join([*made, skewed]), "deepep_normal", 8)
    assert rows is not None and len(rows) == 15
    alpha, share, _ = fit(rows, 450e9)
    assert alpha == pytest.approx(20e-6, rel=0.01) and share == pytest.approx(2 / 3, rel=0.01)
