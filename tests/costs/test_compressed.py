"""Compressed attention, picked blocks and hyper-connections: demands counted one by one, and measured modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.costs import Roofline, Tables, load_costs
from moesim.costs.shapes import hyper
from moesim.costs.sparse import core, of_rank, role_of
from moesim.hardware import load_cluster
from moesim.models import Attention, Compressed, load_model

SMALL = Compressed("mla", 8, 8, 16, 16, 24, window=4, ratio=4, out_rank=12, out_groups=2, selected=3, index_heads=2,
                   index_dim=10)  # fmt: skip
PRO, FLASH, M3 = (load_model(f"{name}") for name in ("DeepSeek-V4-Pro", "DeepSeek-V4-Flash", "MiniMax-M3"))
DEVICE = load_cluster("hgx-h200").devices[0]
VLLM, SGLANG = (load_costs("h200_sxm", DEVICE, kernels) for kernels in ("vllm", "sglang"))
A100 = load_costs("a100_sxm", load_cluster("dgx-a100").devices[0])


@pytest.mark.parametrize("picked", [3, 0])
@pytest.mark.parametrize(("query", "context"), [(1, 0), (1, 7), (1, 400), (64, 0), (32, 96)])
def test_every_pair_is_counted(query: int, context: int, picked: int) -> None:
    """To half a block for each token: how many are whole behind a token is taken on average."""
    shape = replace(SMALL, selected=picked) if picked else replace(SMALL, selected=0, index_heads=0, index_dim=0)
    positions = range(context, context + query)
    window = sum(min(p + 1, 4) for p in positions)
    blocks = [(p + 1) / 4 for p in positions]
    seen = window + sum(min(b, picked) if picked else b for b in blocks)
    scored = sum(blocks) * shape.index_heads * 10
    found = core(query, context, 5, shape, "fp8")
    slack = query * 0.5 * (4 * 8 * 16 + 2 * shape.index_heads * 10)
    assert float(found.flops) / 5 == pytest.approx(4 * 8 * 16 * seen + 2 * scored, abs=slack)


def test_bytes_of_one_decoded_token_by_hand() -> None:
    found = core(1, 399, 7, SMALL, "fp8")
    keys, index, own = (4 + 3) * 16, 400 / 4 * 10, 2 * 8 * 16 * 2
    assert float(found.bytes) == 7 * (keys + index + own)
    every = core(1, 399, 7, replace(SMALL, selected=0, index_heads=0, index_dim=0), "fp8")
    assert float(every.bytes) == 7 * ((4 + 100) * 16 + own)


@pytest.mark.parametrize(("kernels", "ratio", "us"), [("vllm", 4, 174.5), ("vllm", 128, 145.4), ("sglang", 128, 152.7)])
def test_projections_and_core_take_what_the_module_took(kernels: str, ratio: int, us: float) -> None:
    """DeepSeek-V4-Pro decodes 32 sequences of 1,024 tokens on one H200 with fp8 weights, aiconfigurator-core 0.12.0."""
    costs = {"vllm": VLLM, "sglang": SGLANG}[kernels]
    shape = next(one for one in PRO.mixers if isinstance(one, Compressed) and one.ratio == ratio)
    found = costs.sparse_attention("decode", 1, 1024, 32, shape, PRO.hidden_size, 1, "fp8")
    beside = sum(float(costs.gemm(32, one.n, one.k, "fp8").seconds) for one in shape.gemms(PRO.hidden_size))
    assert (float(found.seconds) + beside) * 1e6 == pytest.approx(us, rel=0.06)
    assert (found.role, found.basis) == (f"{role_of(shape, 'decode')}.fp8", "fitted")


@pytest.mark.parametrize(("context", "batch", "us"), [(1023, 32, 85.7), (8191, 256, 477.4), (65535, 32, 227.4)])
def test_picked_blocks_take_what_vllms_module_took(context: int, batch: int, us: float) -> None:
    """MiniMax-M3 decodes on one H200 with fp8 weights over a bf16 cache."""
    found = VLLM.sparse_attention("decode", 1, context, batch, M3.attention, M3.hidden_size, 1, "bf16")
    beside = sum(float(VLLM.gemm(batch, one.n, one.k, "fp8").seconds) for one in M3.attention.gemms(M3.hidden_size))
    assert (float(found.seconds) + beside) * 1e6 == pytest.approx(us, rel=0.08)
    assert found.role == "msa_decode.bf16"


def test_picked_blocks_cost_less_than_all_of_a_long_context() -> None:
    rest = (M3.hidden_size, 8, "bf16")
    whole = replace(M3.attention, selected=0, index_heads=0, index_dim=0)
    full = VLLM.attention("decode", 1, 1 << 17, 16, whole, 8, "bf16").seconds
    assert float(VLLM.sparse_attention("decode", 1, 1 << 17, 16, M3.attention, *rest).seconds) < 0.6 * float(full)


def test_a_rank_has_its_share_of_heads_and_of_picks() -> None:
    own = of_rank(M3.attention, 8)
    assert (own.num_heads, own.num_kv_heads, own.index_heads) == (8, 1, 1)
    assert own.gemms(6144) == M3.attention.gemms(6144, 8)


def test_a_layer_without_blocks_takes_what_the_window_of_hca_takes() -> None:
    alone = next(one for one in FLASH.mixers if isinstance(one, Compressed) and not one.ratio)
    rest = (32, alone, FLASH.hidden_size, 1, "fp8")
    near, far = (VLLM.sparse_attention("decode", 1, context, *rest) for context in (128, 1 << 19))
    assert near.role == "hca_decode.fp8" and float(near.seconds) == float(far.seconds)


def test_where_nobody_measured_it_physics_answers() -> None:
    found = A100.sparse_attention("decode", 1, 1 << 20, 64, PRO.attention, PRO.hidden_size, 1, "fp8")
    demand = core(1, 1 << 20, 64, PRO.attention, "fp8")
    assert found.basis == "assumed" and float(found.seconds) >= float(demand.bytes) / 2.04e12
    bound = Roofline(DEVICE, ()).sparse_attention("decode", 1, 1 << 20, 64, PRO.attention, PRO.hidden_size, 1, "fp8")
    measured = SGLANG.sparse_attention("decode", 1, 1 << 16, 64, PRO.attention, PRO.hidden_size, 1, "fp8")
    assert float(bound.seconds) > 0 and measured.basis == "fitted"


def test_hyper_connections_move_all_copies() -> None:
    before, behind = (hyper(part, 10, 64, 4) for part in ("pre", "post"))
    assert float(before.bytes) == 10 * 64 * 2 * (4 + 1) and float(behind.bytes) == 10 * 64 * 2 * (4 + 1 + 4)
    assert float(before.flops) == 2 * 10 * 64 * (4 * (2 + 4) * 4 + 4)


@pytest.mark.parametrize(("tokens", "us"), [(192, (29.5, 19.0)), (8192, (525.2, 569.2))])
def test_hyper_connections_take_half_of_what_a_layers_two_blocks_took(tokens: int, us: tuple[float, float]) -> None:
    """vLLM's, 7,168 wide, on H200."""
    found = VLLM.hyper(tokens, 7168, 4)
    assert [one.role for one in found] == ["hyper_pre.bf16", "hyper_post.bf16"]
    assert [float(one.seconds) * 1e6 for one in found] == pytest.approx([one / 2 for one in us], rel=0.15)


def test_tables_say_what_the_profile_says() -> None:
    context, rest = np.arange(500, 700), (PRO.attention, PRO.hidden_size, 2, "fp8")
    kept = Tables(VLLM).sparse_attention("decode", 1, context, 16, *rest).seconds
    assert kept.tolist() == VLLM.sparse_attention("decode", 1, context, 16, *rest).seconds.tolist()
    assert isinstance(M3.attention, Attention) and Tables(VLLM).hyper(8, 7168, 4)[0] == VLLM.hyper(8, 7168, 4)[0]
