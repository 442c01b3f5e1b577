"""Attention to the tokens that an indexer picks: its demand counted one by one, measured modules, and without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.costs import Tables, load_costs
from moesim.costs.sparse import core, module, of_rank, role_of
from moesim.hardware import load_cluster
from moesim.models import Attention, load_model

SMALL = Attention("mla", 4, 4, 24, 16, 32, 20, 16, 8, selected=5, index_heads=2, index_dim=10)
GLM = load_model("zai-org/GLM-5-FP8")
B200 = load_costs("b200_sxm", load_cluster("dgx-b200").devices[0], "sglang")
UNMEASURED = load_costs("a100_sxm", load_cluster("dgx-a100").devices[0])


@pytest.mark.parametrize(("query", "context"), [(1, 0), (1, 3), (1, 40), (7, 0), (3, 4), (9, 30)])
def test_every_pair_is_counted_once(query: int, context: int) -> None:
    positions = range(context, context + query)
    seen, every = sum(min(p + 1, 5) for p in positions), sum(p + 1 for p in positions)
    found = core(query, context, 3, SMALL, "bf16")
    latent = 20 + 8
    assert float(found.flops) == 3 * 2 * (every * 2 * 10 + seen * 4 * (latent + 20))
    read = min(context + query, 5 * query)
    values = query * 4 * (latent + 20) * 2
    assert float(found.bytes) == 3 * ((context + query) * 10 + read * latent * 2 + values)


def test_a_module_adds_its_weights_and_their_flops() -> None:
    inner, whole = core(1, 40, 8, SMALL, "bf16"), module(1, 40, 8, SMALL, 64, "fp8", "bf16")
    weights = sum(gemm.n * gemm.k for gemm in SMALL.gemms(64))
    assert weights == 64 * (32 + 28) + 32 * 4 * 24 + 20 * 4 * 32 + 2 * 10 * 32 + 64 * (10 + 2) + 64 * 4 * 16
    assert float(whole.flops - inner.flops) == 2 * 8 * weights
    assert float(whole.bytes - inner.bytes) == weights + 2 * 8 * 64 * 2


@pytest.mark.parametrize(
    ("ways", "batch", "context", "us"), [(8, 16, 1024, 86.5), (8, 64, 1024, 117.9), (1, 4, 8192, 126.0)]
)
def test_projections_and_core_take_what_the_module_took(ways: int, batch: int, context: int, us: float) -> None:
    """SGLang 0.5.14 decodes GLM-5-FP8 on B200, aiconfigurator-core 0.12.0: rows that the profile was fitted on."""
    found = B200.sparse_attention("decode", 1, context, batch, GLM.attention, GLM.hidden_size, ways, "bf16")
    gemms = of_rank(GLM.attention, ways).gemms(GLM.hidden_size)
    beside = sum(float(B200.gemm(batch, one.n, one.k, "fp8").seconds) for one in gemms)
    assert (float(found.seconds) + beside) * 1e6 == pytest.approx(us, rel=0.06)
    assert (found.role, found.basis, found.family) == ("dsa_decode.bf16", "fitted", "sparse attention")


def test_short_prompts_are_attended_to_in_full() -> None:
    for query, context in ((512, 0), (1024, 1024)):
        rest = (GLM.attention, GLM.hidden_size, 8, "bf16")
        sparse = B200.sparse_attention("prefill", query, context, 2, *rest)
        assert float(sparse.seconds) == float(
            B200.attention("prefill", query, context, 2, GLM.attention, 8, "bf16").seconds
        )
    longer = B200.sparse_attention("prefill", 4096, 0, 1, GLM.attention, GLM.hidden_size, 8, "bf16")
    assert longer.role == "dsa_prefill.bf16" and float(longer.seconds) > 1e-3


def test_no_answer_beats_physics_and_nothing_takes_no_time() -> None:
    batch, context = np.meshgrid([1, 16, 256], [64, 4096, 131072])
    rest = (GLM.attention, GLM.hidden_size, 8, "bf16")
    found = B200.sparse_attention("decode", 1, context, batch, *rest)
    assert (found.seconds >= found.bytes / 8e12).all() and (found.seconds > 0).all()
    assert float(B200.sparse_attention("decode", 1, 64, 0, *rest).seconds) == 0


def test_reused_picks_cost_less() -> None:
    reuse = replace(GLM.attention, index_heads=0)
    assert role_of(reuse, "decode") == "dsa_reuse_decode"
    own, taken = (
        float(B200.sparse_attention("decode", 1, 8192, 16, shape, GLM.hidden_size, 8, "bf16").seconds)
        for shape in (GLM.attention, reuse)
    )
    assert taken < own


def test_without_a_table_it_is_assumed_and_context_beyond_the_picks_costs_its_index_alone() -> None:
    rest = (GLM.attention, GLM.hidden_size, 8, "bf16")
    near, far = (UNMEASURED.sparse_attention("decode", 1, context, 64, *rest) for context in (2048, 65536))
    assert (
        near.family == "unmeasured kernels"
        and near.basis == far.basis == "assumed"
        and "nobody measured it" in near.kernel
    )
    index = 64 * (65536 - 2048) * 128 / 2.039e12
    assert float(far.seconds - near.seconds) == pytest.approx(index, rel=0.05)


def test_tables_say_what_they_asked() -> None:
    rest = (GLM.attention, GLM.hidden_size, 8, "bf16")
    context = np.array([100, 3000, 8191])
    kept = Tables(B200).sparse_attention("decode", 1, context, 16, *rest).seconds
    assert kept.tolist() == B200.sparse_attention("decode", 1, context, 16, *rest).seconds.tolist()


def test_scores_of_fp8_keys_are_held_to_the_fp8_peak() -> None:
    """4,096 queries after 126,976 tokens: 8.65 TFLOP of scores take 4.4 ms at 1,979 TFLOP/s, not 8.7 at bf16's 989."""
    h100 = load_costs("roofline", load_cluster("dgx-h100").devices[0])
    model = load_model("deepseek-ai/DeepSeek-V3.2")
    found = h100.sparse_attention("prefill", 4096, 126_976, 1, model.attention, model.hidden_size, 4, "fp8")
    scored = 2 * 4096 * (126_976 + 4097 / 2) * 64 * 128
    picked = 2 * 4096 * 2048 * 32 * (576 + 512)
    assert float(found.flops) == pytest.approx(scored + picked)
    assert float(found.seconds) == pytest.approx(scored / 1979e12 + picked / 989.4e12, rel=1e-3)
