"""Which kernel ran is part of what is recorded: backends of torch's attention, libraries for MLA decode, graphs."""

from __future__ import annotations

import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch.profiler import profile

from moesim.calibration.kernels import candidates, kernel_sets
from moesim.calibration.measure import attempt as attempts
from moesim.calibration.measure.attempt import CALLS, WAITS, Failed, attempt
from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.cpu import CpuTarget
from moesim.calibration.measure.cuda import SYNCHRONIZING, CudaTarget
from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.plan import PlanSection, SamplingSection, load_plan
from moesim.calibration.measure.run import expand, measure
from moesim.calibration.measure.target import find_target
from moesim.calibration.operators import OPERATORS, mla_libraries
from moesim.calibration.operators.operator import Place, WrongResult
from moesim.calibration.physics import by_kernel
from moesim.calibration.records import Records, read_records, records_of

ALONE = Place(find_target("cpu"), Peers())
QUICK = SamplingSection.model_validate({"warm_up": "0 s", "stable": 0.5, "least": 3, "most": 20, "per_case": "10 ms"})
SMALL = load_plan("cpu-smoke").model_copy(update={"sampling": QUICK, "tokens": (5,), "contexts": (8,)})
MLA = shape(batch=3, query=1, context=99, heads=4, kv_heads=1, head_dim=576, tp=1)


class StandIn(CpuTarget):
    """Says that it is a GPU, and has graphs that remember what they hold."""

    device_class = "cuda"

    def __init__(self) -> None:
        super().__init__()
        self.graphed: list[Callable[[], Any]] = []
        self.synchronizes = False

    def graph(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:  # type: ignore[override]
        self.graphed = list(calls)
        return lambda: [call() for call in calls][-1]

    def waits(self, call: Callable[[], Any]) -> bool:
        call()
        return self.synchronizes


def small(**changes: object) -> PlanSection:
    return SMALL.model_copy(update=changes)


@pytest.mark.parametrize(("backend", "ran"), [("flash", "flash_attention_for_cpu"), ("math", "attention_math")])
@pytest.mark.parametrize("operator", ["attention_prefill", "attention_decode"])
def test_the_backend_that_runs_is_the_one_that_was_forced(operator: str, backend: str, ran: str) -> None:
    """As the profiler sees it."""
    case = next(iter(OPERATORS[operator].cases(small(sdpa=(backend,)), 1)))
    prepared = OPERATORS[operator].prepare(case, ALONE)
    with torch.inference_mode(), prepared.within(), profile() as seen:
        prepared.check(prepared.call())
    assert case.kernel == f"torch_sdpa_{backend}"
    assert any(ran in event.key for event in seen.key_averages())


def test_a_backend_without_a_kernel_fails_and_does_not_fall_back() -> None:
    case = next(iter(OPERATORS["attention_decode"].cases(small(sdpa=("cudnn",)), 1)))
    with torch.inference_mode(), pytest.raises(Failed, match="No viable backend"):
        attempt(case, ALONE, SMALL, 0.01)


def test_rows_of_two_backends_are_two_kernels(tmp_path: Path) -> None:
    plan = small(operators=("attention_decode",), sdpa=("flash", "math"))
    measure(plan, ALONE, tmp_path / "run", 60.0, lambda *_: None)
    parts = by_kernel(read_records(tmp_path / "run" / "records.parquet").of(op="attention_decode"))
    assert [str(part["kernel"][0]) for part in parts] == ["torch_sdpa_flash", "torch_sdpa_math"]


def test_backends_are_asked_only_for_what_they_have() -> None:
    """Flash attention has no wider keys than values, the efficient one no grouped heads."""
    plan = small(models=("deepseek-ai/DeepSeek-V3",), dtypes=("bf16",), sdpa=("flash", "cudnn", "efficient", "math"))
    kernels = {case.kernel for case in OPERATORS["mla_prefill"].cases(plan, 1)}
    assert kernels == {"torch_sdpa_cudnn", "torch_sdpa_efficient", "torch_sdpa_math"}
    grouped = small(models=("Qwen/Qwen3-30B-A3B",), sdpa=("flash", "efficient"))
    assert {case.kernel for case in OPERATORS["attention_decode"].cases(grouped, 1)} == {"torch_sdpa_flash"}


def test_an_operator_that_has_no_case_is_said() -> None:
    plan = small(operators=("gemm", "mla_prefill"), models=("deepseek-ai/DeepSeek-V3",), sdpa=("flash",))
    _, refused = expand(plan, ALONE)
    assert [(one.operator, "make no case of it" in one.why) for one in refused] == [("mla_prefill", True)]


def test_a_graph_holds_ten_calls_each_with_operands_of_its_own() -> None:
    target = StandIn()
    case = Case("gemm", "gemm", "fp32", shape(m=4, n=8, k=16), mode="graph")
    taken = attempt(case, Place(target, Peers()), SMALL, 0.01)
    operands = {call.args[1].data_ptr() for call in target.graphed}  # type: ignore[attr-defined]
    assert taken.columns["calls"] == len(target.graphed) == len(operands) == CALLS
    warm = SMALL.model_copy(update={"sampling": QUICK.model_copy(update={"cold": False})})
    attempt(case, Place(target, Peers()), warm, 0.01)
    assert len({id(call) for call in target.graphed}) == 1 and len(target.graphed) == CALLS


def test_large_operands_share_a_graph_with_fewer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter([0, 3 << 30])
    monkeypatch.setattr(StandIn, "held", lambda self: next(held))
    case = Case("gemm", "gemm", "fp32", shape(m=4, n=8, k=16), mode="graph")
    taken = attempt(case, Place(StandIn(), Peers()), SMALL, 0.01)
    assert taken.columns["calls"] == attempts.SETS_BYTES // (3 << 30) == 2


def test_a_sample_is_the_time_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "seconds", lambda self, call, cold, hold: 10.0)
    case = Case("gemm", "gemm", "fp32", shape(m=4, n=8, k=16), mode="graph")
    assert set(attempt(case, Place(StandIn(), Peers()), SMALL, 0.01).samples) == {1.0}
    assert set(attempt(replace(case, mode="eager"), Place(StandIn(), Peers()), SMALL, 0.01).samples) == {10.0}


def test_a_kernel_that_makes_the_host_wait_is_labelled() -> None:
    """As torch's grouped GEMM on devices that it has no kernel for; DeepEP's normal dispatch waits wherever it runs."""
    target = StandIn()
    target.synchronizes = True
    case = next(iter(OPERATORS["grouped_gemm"].cases(SMALL, 1)))
    assert attempt(case, Place(target, Peers()), SMALL, 0.01).label == WAITS
    assert attempt(replace(case, label="sentinel"), Place(target, Peers()), SMALL, 0.01).label == "sentinel"
    assert OPERATORS["deepep_dispatch"].waits and not OPERATORS["grouped_gemm"].waits


def test_torch_says_which_calls_synchronize(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    target = CudaTarget.__new__(CudaTarget)
    assert target.waits(lambda: warnings.warn(f"{SYNCHRONIZING} (at ...)", stacklevel=1))
    assert not target.waits(lambda: warnings.warn("something else", stacklevel=1))
    assert modes == ["warn", 0, "warn", 0]


@dataclass
class Library:
    """Stands in for the three libraries: computes what they do by their layouts, and remembers how it was called."""

    said: dict[str, Any]

    def attend(self, query: Any, keys: Any, values: Any, pages: Any, length: Any, scale: float) -> torch.Tensor:
        """query [B, H, d]; keys, values [P, PAGE, d]; pages [B, n] -> [B, H, v]."""
        found = []
        for one in range(len(query)):
            own = pages[one].long()
            key, value = (part[own].flatten(0, 1)[: int(length[one])].float() for part in (keys, values))
            found.append((query[one].float() @ key.T * scale).softmax(-1) @ value)
        return torch.stack(found).to(torch.bfloat16 if query.dtype == torch.float8_e4m3fn else query.dtype)

    def get_mla_metadata(self, length: Any, heads: int, kv_heads: int) -> tuple[str, None]:
        self.said["metadata"] = (length.dtype, heads, kv_heads)
        return "schedule", None

    def flash_mla_with_kvcache(
        self, q: Any, k_cache: Any, block_table: Any, cache_seqlens: Any, head_dim_v: int, schedule: Any, splits: Any,
        softmax_scale: float, causal: bool,
    ) -> tuple[torch.Tensor, None]:  # fmt: skip
        assert (schedule, splits, causal, block_table.dtype) == ("schedule", None, True, torch.int32)
        keys = k_cache.squeeze(2)
        values = keys[..., :head_dim_v]
        found = self.attend(q.squeeze(1), keys, values, block_table, cache_seqlens, softmax_scale)
        return found.unsqueeze(1), None

    def flash_attn_with_kvcache(
        self, q: Any, k_cache: Any, v_cache: Any, *, qv: Any, cache_seqlens: Any, page_table: Any, softmax_scale: float,
        causal: bool,
    ) -> torch.Tensor:  # fmt: skip
        assert causal and q.shape[-1] == 64 and qv.shape[-1] == 512
        keys = torch.cat([v_cache, k_cache], dim=-1).squeeze(2)
        query = torch.cat([qv, q], dim=-1).squeeze(1)
        return self.attend(query, keys, v_cache.squeeze(2), page_table, cache_seqlens, softmax_scale).unsqueeze(1)

    def BatchMLAPagedAttentionWrapper(self, workspace: torch.Tensor) -> Library:
        self.said["workspace"] = workspace.numel()
        return self

    def plan(self, queries: Any, ends: Any, pages: Any, length: Any, heads: int, latent: int, rope: int, page: int,
             causal: bool, scale: float, q_type: Any, kv_type: Any) -> None:  # fmt: skip
        self.said |= {"ends": ends.tolist(), "shape": (heads, latent, rope, page), "scale": scale}
        self.pages, self.length = pages.view(len(length), -1), length

    def run(self, query: Any, turned: Any, latent: Any, rope: Any) -> torch.Tensor:
        keys = torch.cat([latent, rope], dim=-1)
        return self.attend(torch.cat([query, turned], -1), keys, latent, self.pages, self.length, self.said["scale"])

    _backend = "fa3"

    def trtllm_batch_decode_with_kv_cache_mla(
        self, *, query: Any, kv_cache: Any, workspace_buffer: Any, qk_nope_head_dim: int, kv_lora_rank: int,
        qk_rope_head_dim: int, block_tables: Any, seq_lens: Any, max_seq_len: int, bmm1_scale: float, bmm2_scale: float,
    ) -> torch.Tensor:  # fmt: skip
        """A page is [1, tokens, 576]; pages of 128 tokens, zeros in the workspace and bf16 out, as it asks for."""
        assert (qk_nope_head_dim, kv_lora_rank, qk_rope_head_dim, bmm2_scale) == (128, 512, 64, 1.0)
        assert block_tables.shape[1] % 2 == 0 and not workspace_buffer.any() and kv_cache.shape[1] == 1
        assert max_seq_len >= int(seq_lens.max()) and query.dtype == kv_cache.dtype == torch.float8_e4m3fn
        keys = kv_cache.squeeze(1)
        found = self.attend(query.squeeze(1), keys, keys[..., :kv_lora_rank], block_tables, seq_lens, bmm1_scale)
        return found.unsqueeze(1)


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> Library:
    """Modules of these names that are the stand-in."""
    library = Library({})
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__getattr__ = lambda wanted: getattr(library, wanted)  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
    return library


@pytest.mark.parametrize(
    ("operator", "modules", "kernel"),
    [
        ("mla_decode_flashmla", ("flash_mla",), "flash_mla_with_kvcache"),
        ("mla_decode_flashinfer", ("flashinfer", "flashinfer.mla"), "flashinfer_mla_fa3"),
        ("mla_decode_fa3", ("flash_attn_interface",), "flash_attn_with_kvcache"),
    ],
)
def test_libraries_are_called_by_their_own_layouts(
    operator: str, modules: tuple[str, ...], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 tokens of a sequence are two pages, the second of which is part empty."""
    library = installed(monkeypatch, *modules)
    monkeypatch.setattr(mla_libraries, "refusal", lambda case, device_class: "")
    assert OPERATORS[operator].refuses(StandIn()) == ""
    prepared = OPERATORS[operator].prepare(Case(operator, "mla_decode", "bf16", MLA), ALONE)
    prepared.check(prepared.call())
    with pytest.raises(WrongResult):
        prepared.check(prepared.call() * 1.2)
    assert prepared.columns == {"kernel": kernel}
    assert prepared.flops == 2 * 3 * 100 * 4 * (576 + 512)
    assert prepared.bytes == 2 * (3 * 100 * 576 + 3 * 4 * 576 + 3 * 4 * 512)
    if "flashinfer" in modules:
        assert library.said["ends"] == [0, 2, 4, 6] and library.said["shape"] == (4, 512, 64, 64)


def test_decode_from_an_fp8_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 tokens are three pairs of pages; queries and latents take a byte a value, results two."""
    installed(monkeypatch, "flashinfer", "flashinfer.mla")
    name = "mla_decode_trtllm_fp8"
    case = Case(name, "mla_decode", "fp8", shape(**dict(MLA) | {"context": 299}))
    prepared = OPERATORS[name].prepare(case, ALONE)
    prepared.check(prepared.call())
    with pytest.raises(WrongResult):
        prepared.check(prepared.call() * 1.2)
    assert case.row(0)["cache_dtype"] == "fp8" and prepared.columns == {"kernel": "trtllm_batch_decode_mla"}
    assert prepared.bytes == 3 * 300 * 576 + 3 * 4 * 576 + 2 * 3 * 4 * 512
    plan = small(models=("deepseek-ai/DeepSeek-V3",), dtypes=("bf16", "fp8"))
    assert {one.dtype for one in OPERATORS[name].cases(plan, 1)} == {"fp8"}
    assert {one.dtype for one in OPERATORS["mla_decode_flashmla"].cases(plan, 1)} == {"bf16"}


@pytest.mark.parametrize(
    ("operator", "model", "backend"),
    [("attention_prefill", "Qwen/Qwen3-30B-A3B", "flash"), ("mla_prefill", "deepseek-ai/DeepSeek-V3", "efficient")],
)
def test_a_prompt_sees_what_is_cached_before_it(operator: str, model: str, backend: str) -> None:
    """Its first token all 12 cached ones and itself. Told from a mask that ends at the upper left."""
    plan = small(models=(model,), sdpa=(backend, "cudnn"), prefixes=(0, 12), tensor_parallel=(4,))
    plain, after = (case for case in OPERATORS[operator].cases(plan, 1) if case.kernel.endswith(backend))
    assert (plain["query"], plain["context"], after["query"], after["context"]) == (8, 0, 8, 12)
    cudnn = [case["context"] for case in OPERATORS[operator].cases(plan, 1) if case.kernel.endswith("cudnn")]
    assert cudnn == [0]  # it would read a mask
    case = replace(after, kernel="torch_sdpa_math")
    prepared = OPERATORS[operator].prepare(case, ALONE)
    with torch.inference_mode(), prepared.within():
        prepared.check(prepared.call())
        call: Any = prepared.call
        with pytest.raises(WrongResult):
            prepared.check(call(attn_mask=None, is_causal=True))
    assert prepared.flops / OPERATORS[operator].prepare(plain, ALONE).flops == (12 + 4.5) / 4.5


def test_prefixes_are_left_out_where_they_would_not_fit() -> None:
    """Of 2 ** 18 tokens with their prefix, and no decode has one."""
    plan = small(models=("Qwen/Qwen3-30B-A3B",), batches=(1, 16), contexts=(8,), prefixes=(0, 1 << 15))
    sizes = [(one["batch"], one["context"]) for one in OPERATORS["attention_prefill"].cases(plan, 1)]
    assert sizes == [(1, 0), (1, 1 << 15), (16, 0)]
    assert {one["context"] for one in OPERATORS["attention_decode"].cases(plan, 1)} == {7}


def test_a_library_that_is_not_there_or_does_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OPERATORS["mla_decode_flashmla"].refuses(ALONE.target) == "flash_mla runs on GPUs only"
    assert OPERATORS["mla_decode_flashinfer"].refuses(StandIn()) == "flashinfer.mla is not installed"
    installed(monkeypatch, "flash_mla")
    monkeypatch.setattr(mla_libraries, "refusal", lambda case, device_class: f"a tiny {case.operator} fails: sm80")
    assert OPERATORS["mla_decode_flashmla"].refuses(StandIn()) == "a tiny mla_decode_flashmla fails: sm80"
    assert "no kernel for it" in OPERATORS["mla_decode"].refuses(StandIn())


def _decode(backend: str, kernel: str, factor: float) -> Records:
    row = {"run": "r", "device": "d", "device_class": "cuda", "op": "mla_decode", "backend": backend, "kernel": kernel,
           "dtype": "bf16", "cache_dtype": "bf16", "mode": "graph", "heads": 128}  # fmt: skip
    sizes = [(batch, context) for batch in (1, 4, 16, 64) for context in 2 ** np.arange(5, 15)]
    return records_of([row | {"batch": b, "context": int(c), "samples": [factor * (1e-5 + b * c * 1e-9)]}
                       for b, c in sizes])  # fmt: skip


def test_libraries_play_in_the_set_of_the_harness_and_the_fastest_is_taken() -> None:
    parts = [_decode("flash_mla", "flash_mla_with_kvcache", 1.0), _decode("flashinfer", "flashinfer_mla_fa3", 1.3)]
    sets = kernel_sets(candidates(parts))
    assert sets == {"torch": {"mla_decode.bf16": "mla_decode/flash_mla/flash_mla_with_kvcache/bf16/bf16/graph"}}
