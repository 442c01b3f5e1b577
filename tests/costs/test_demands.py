"""What physics has to do for an operator, against sums written out here."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.costs import shapes
from moesim.models import Attention

LATENT = Attention("mla", 128, 128, 128, 128, 1536, 512, 128, 64)  # DeepSeek-V3's: 128 heads of 128 + 64, values of 128


def test_prefill_of_latent_attention_expands_keys_and_values() -> None:
    """2 sequences of 1,000 tokens: 1,000 x 1,001 / 2 pairs a head, 192 multiplied for the score, 128 for the value."""
    found = shapes.attention_of(LATENT, "prefill", 1000, 0, 2, 64, "bf16")
    assert float(found.flops) == pytest.approx(2 * 2 * 500_500 * 64 * (192 + 128))
    own = 2 * 1000 * 64 * (192 + 128) * 2  # queries read and results written
    assert float(found.bytes) == pytest.approx(own + own)  # as many keys and values, without a cached context


def test_decode_of_latent_attention_reads_the_latent_once_for_all_heads() -> None:
    found = shapes.attention_of(LATENT, "decode", 1, 999, 3, 64, "fp8")
    assert float(found.flops) == pytest.approx(2 * 3 * 1000 * 64 * (2 * 512 + 64))
    assert float(found.bytes) == pytest.approx(3 * 64 * (192 + 128) * 2 + 3 * 1000 * (512 + 64))


def test_full_attention_sees_all_pairs_and_caches_nothing() -> None:
    """3 sequences of 200 tokens, 4 heads of 64 for queries and 2 for keys; tiles of 192 x 192 or 128 x 128."""
    found = shapes.full_attention(200, 3, 4, 2, 64, 64, tile=192)
    assert float(found.flops) == 2 * 3 * 200 * 200 * 4 * (64 + 64)
    assert float(found.bytes) == 3 * 200 * (4 + 2) * (64 + 64) * 2
    assert float(found.padded) == 2 * 3 * 384 * 384 * 4 * (64 + 64) and [float(n) for n in found.counts] == [3 * 4 * 2]
    assert float(shapes.full_attention(200, 3, 4, 2, 64, 64).padded) == 2 * 3 * 256 * 256 * 4 * (64 + 64)
    assert float(shapes.full_attention(0, 3, 4, 2, 64, 64).bytes) == 0
    causal = shapes.attention("prefill", 200, 0, 3, 4, 2, 64, 64, "bf16")
    assert float(found.flops / causal.flops) == pytest.approx(2 * 200 / 201), "200 of 100.5 tokens"


def given(demand: shapes.Demand) -> tuple[float, float, float, list[float], list[float]]:
    """flops, bytes, FLOPs of whole tiles, counts, and what the coordinates are the logarithms of."""
    whole = [float(2**one) for one in demand.coordinates]
    return float(demand.flops), float(demand.bytes), float(demand.padded), [float(one) for one in demand.counts], whole


def test_a_gemm_of_300_rows_fills_three_tiles_of_128() -> None:
    flops, moved, padded, counts, where = given(shapes.gemm(300, 512, 1024, "fp8", tile=128))
    assert (flops, padded, counts) == (2 * 300 * 512 * 1024, 2 * 384 * 512 * 1024, [])
    assert moved == 300 * 1024 * 1 + 300 * 512 * 2 + 512 * 1024 * 1  # inputs and weights in a byte, results in two
    assert where == pytest.approx([300, 512, 1024, 3 * 4, 300 - 256, moved])
    assert given(shapes.gemm(256, 512, 1024, "bf16"))[4][4] == pytest.approx(128), "a full last tile"
    assert given(shapes.gemm(300, 512, 1024, "bf16", kind="gemm_aligned"))[4][4] == pytest.approx(4), "300 = 4 x 75"
    assert given(shapes.gemm(0, 512, 1024, "bf16"))[1] == 0, "nothing to do reads no weights"
    weight_only = given(shapes.gemm(10, 512, 1024, "int8_wo"))[1]
    assert weight_only == 10 * 1024 * 2 + 10 * 512 * 2 + 512 * 1024, "activations stay in two bytes"


def test_experts_read_the_weights_of_those_with_rows() -> None:
    """Four experts, one without a row; three matrices of 8 x 4, tiles of 16 rows; 60 rows pass through the kernel."""
    rows = shapes.rows_of(np.array([20, 0, 3, 7]), 16)
    assert [float(one) for one in rows] == [30, 3, 20, 32 + 16 + 16]
    flops, moved, padded, counts, where = given(shapes.experts(rows, 8, 4, "fp8", 3, 60))
    assert (flops, padded) == (2 * 3 * 8 * 4 * 30, 2 * 3 * 8 * 4 * 64)
    assert moved == 3 * (3 * 8 * 4) * 1 + 30 * 2 * (2 * 8 + 3 * 4)  # each row in, halves between, and out
    assert counts == [60 * 8 * 2, 60, 3]
    assert where == pytest.approx([10, 3, 8, 4, 20 / 10, 2, moved])
    ungated = given(shapes.experts(rows, 8, 4, "bf16", 1))
    assert ungated[1] == 3 * 8 * 4 * 2 + 30 * 2 * (1 * 8 + 1 * 4) and ungated[3][:2] == [30 * 8 * 2, 30]


def test_attention_of_a_chunk_sees_what_was_cached_and_half_of_itself() -> None:
    """2 sequences of 200 new tokens after 100: two blocks of 128 queries; 8 heads on 2 KV heads of 64 + 32."""
    flops, moved, padded, counts, where = given(shapes.attention("prefill", 200, 100, 2, 8, 2, 64, 32, "fp8"))
    assert flops == padded == 2 * 2 * 200 * (100 + 201 / 2) * 8 * 96
    assert moved == 2 * (200 * 8 * 2 + 300 * 2 * 1) * 96
    assert counts == [2 * 8 * 2]
    assert where == pytest.approx([32, 300, 4, 64, 2, moved])
    decode = given(shapes.attention("decode", 1, 99, 5, 8, 2, 64, 32, "bf16"))
    assert decode[3] == [5 * 2] and decode[0] == 2 * 5 * 100 * 8 * 96, "a unit of decode is a KV head of a sequence"
    assert given(shapes.attention("decode", 0, 99, 5, 8, 2, 64, 32, "bf16"))[1] == 0


def test_units_of_latent_attention_are_heads_in_decode_and_blocks_of_heads_in_prefill() -> None:
    prefill = given(shapes.latent_attention("prefill", 200, 100, 2, 16, "bf16"))
    assert prefill[3] == [2 * 16 * 2] and prefill[4] == pytest.approx([2, 300, 16, prefill[1]])
    assert prefill[0] == prefill[2] == 2 * 2 * 200 * (100 + 201 / 2) * 16 * 320
    decode = given(shapes.latent_attention("decode", 1, 99, 2, 16, "bf16"))
    assert decode[3] == [2 * 16] and decode[1] == 2 * 16 * 320 * 2 + 2 * 100 * 576 * 2
    assert given(shapes.latent_attention("decode", 0, 99, 2, 16, "bf16"))[3] == [0]


def test_heads_on_a_device_keep_their_share_of_kv_heads_and_at_least_one() -> None:
    grouped = Attention("gqa", 32, 4, 128, 128)
    for heads, kv in ((32, 4), (16, 2), (4, 1)):
        found = shapes.attention_of(grouped, "decode", 1, 9, 1, heads, "bf16")
        assert float(found.bytes) == (heads * 2 + 10 * kv * 2) * 256


def test_a_rank_moves_its_buffer_once_less_its_own_part_and_twice_in_an_all_reduce() -> None:
    flops, moved, rounds, counts, where = given(shapes.collective("all_gather", 8000, 8))
    assert (flops, moved, rounds) == (0, 7000, 7) and counts == pytest.approx([7000**0.5, 8000])
    assert where == pytest.approx([8000, 1000])
    assert given(shapes.collective("all_reduce", 8000, 8))[1] == 14000


def test_low_latency_sends_every_choice_and_normal_kernels_every_gpu_once() -> None:
    low = given(shapes.exchange(100, 7168, 8, "fp8", True, 0))
    assert low[1] == 100 * 8 * 7168 and low[3] == [100] and low[4] == pytest.approx([100, 7168, 8, 1])
    normal = given(shapes.exchange(100, 7168, 2, "bf16", False, 24))
    assert normal[1] == pytest.approx(100 * (1 + 7 / 8) * 7168 * 2), "two draws of eight GPUs hit 15/8 of them"
    assert (normal[0], normal[2]) == (0, 0) and normal[4][3] == pytest.approx(24)
