"""Seconds of each operator of a step under the roofline, against sums written out here: shape, bytes, FLOPs, dtype, TP.

Weights are read once, activations come and go in bf16; an operator takes its bytes at 3.35 TB/s or its FLOPs at peak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.costs import load_costs
from moesim.costs.roofline import Roofline
from moesim.hardware import load_cluster
from moesim.layout import Spread
from moesim.models import load_model
from moesim.step import Batch, CostLog, LayerOps, Phase, Precision, lower
from moesim.step.batch import Alike
from moesim.step.small_kernels import rotary_bytes
from tests.step.by_hand import (
    DATA,
    DENSE,
    EVEN,
    EXPERTS,
    HBM,
    HEADS,
    KV,
    MODEL,
    PEAK,
    PEAK_FP8,
    SHARED,
    TOP,
    VOCAB,
    WIDTH,
    D,
    H,
    gemm,
    moved,
    step,
    tp,
)

DECODE: dict[str, Any] = DATA["batch"]
PREFILL = {"phase": "prefill", "tokens_per_gpu": 4096, "context": 1024}
TRAIN = {"phase": "train", "tokens_per_gpu": 2048, "context": 1024}
EP4 = tp(1, expert_parallel_size=4)
EXACT = 1e-6  # clocks count picoseconds


def near(value: Any) -> Any:
    return pytest.approx(value, rel=EXACT)


def core(requests: int, query: int, context: int, heads: int, kv: int, cache: float = 2) -> float:
    """Scores and values of causal sequences; keys and values of all tokens are read, queries read, results written."""
    pairs = query * context + query * (query + 1) / 2
    flops = 2 * requests * pairs * heads * (D + D)
    nbytes = requests * (query * heads * 2 + (context + query) * kv * cache) * (D + D)
    return max(flops / PEAK, nbytes / HBM)


def norm(tokens: int) -> float:
    """Norm with residual add: two tensors read, two written, bf16."""
    return moved(tokens * 4 * 2 * H)


@pytest.mark.parametrize(
    ("parallel", "rows", "ways", "residual"),
    [(EP4, 8, 1, 8), (tp(2, expert_parallel_size=4), 16, 2, 8), (tp(4, expert_parallel_size=4), 32, 4, 8),
     (tp(2), 16, 2, 16), (tp(4), 32, 4, 32)],
)  # fmt: skip
def test_attention_is_split_by_heads(parallel: dict[str, int], rows: int, ways: int, residual: int) -> None:
    found = step(parallel=parallel).seconds("attention")
    heads, kv = HEADS // ways, KV // ways
    projections = gemm(rows, (heads + 2 * kv) * D, H) + gemm(rows, H, heads * D)
    assert found == near(projections + core(rows, 1, 100, heads, kv) + norm(residual))


def test_more_ranks_than_key_value_heads_read_one_each() -> None:
    found = step(parallel={"tensor_parallel_size": 8}, batch={**DECODE, "tokens_per_gpu": 1}).seconds("attention")
    assert found == near(gemm(8, (2 + 2 * 1) * D, H) + gemm(8, H, 2 * D) + core(8, 1, 100, 2, 1) + norm(8))


@pytest.mark.parametrize(("dtype", "cache"), [("bf16", 2), ("fp8", 1)])
def test_decode_reads_the_cache_of_its_context(dtype: str, cache: int) -> None:
    seconds = [
        step(batch={**DECODE, "context": context}, precision={"kv_cache": dtype}).seconds("attention")[0]
        for context in (100, 10_100)
    ]
    assert seconds[1] - seconds[0] == near(8 * 10_000 * 2 * KV * D * cache / HBM)


def test_prefill_is_causal_and_bound_by_flops() -> None:
    found = step(batch=PREFILL).seconds("attention")
    flops = 4 * 2 * (1024 * 1025 / 2) * HEADS * 2 * D
    assert flops / PEAK == core(4, 1024, 0, HEADS, KV)
    assert found == near(gemm(4096, (HEADS + 2 * KV) * D, H) + gemm(4096, H, HEADS * D) + flops / PEAK + norm(4096))


def test_fp8_weights_are_one_byte_and_compute_twice_as_fast() -> None:
    small, large = (step(batch=b, precision={"weights": "fp8", "experts": "bf16"}) for b in (DECODE, PREFILL))
    assert small.seconds("mlp") == near(
        gemm(8, 2 * DENSE, H, 1, 1, PEAK_FP8) + gemm(8, H, DENSE, 1, 1, PEAK_FP8) + moved(8 * 2 * 3 * DENSE) + norm(8)
    )
    flops = 2 * 4096 * H * DENSE / PEAK_FP8
    assert gemm(4096, H, DENSE, 1, 1, PEAK_FP8) == flops
    assert large.seconds("mlp") == near(3 * flops + moved(4096 * 2 * 3 * DENSE) + norm(4096))


def rotary(tokens: int) -> float:
    """Queries and keys read and written."""
    return moved(tokens * 2 * 2 * (HEADS + KV) * D)


def loss(tokens: int) -> float:
    """Logits read in bf16, their softmax written in fp32; backward the other way."""
    return moved(tokens * 6 * VOCAB)


def permuted(tokens: int) -> float:
    """A token read, its two copies written; two results read, their sum written."""
    return moved(tokens * 6 * 2 * H)


def ffn(rows: int, width: int) -> float:
    """Gate and up projection as one, their product (read twice, written once), down projection."""
    return gemm(rows, 2 * width, H) + gemm(rows, H, width) + moved(rows * 2 * 3 * width)


@pytest.mark.parametrize(("ways", "ep", "own"), [(1, 4, 8), (2, 4, 8), (4, 4, 8), (4, 1, 32)])
def test_the_dense_ffn_is_split_by_width_over_the_tokens_of_the_group(ways: int, ep: int, own: int) -> None:
    found = step(parallel=tp(ways, expert_parallel_size=ep)).seconds("mlp")
    assert found == near(ffn(8 * ways, DENSE // ways) + norm(own))


@pytest.mark.parametrize(
    ("ways", "ep", "phase", "rows", "width"),
    [(1, 4, DECODE, 8, SHARED), (4, 4, DECODE, 8, SHARED), (4, 1, DECODE, 32, SHARED // 4),
     (4, 4, TRAIN, 8192, SHARED // 4), (4, 1, TRAIN, 8192, SHARED // 4)],
)  # fmt: skip
def test_the_shared_expert(ways: int, ep: int, phase: dict[str, Any], rows: int, width: int) -> None:
    found = step(parallel=tp(ways, expert_parallel_size=ep), batch=phase).seconds("shared")
    assert found == near(ffn(rows, width))


def test_a_model_without_a_shared_expert_computes_none() -> None:
    assert not step(model={**MODEL, "shared_intermediate": 0}).tasks("shared")


@pytest.mark.parametrize(("parallel", "tokens"), [(EP4, 8), (tp(4, expert_parallel_size=4), 8), (tp(4), 32)])
def test_the_router_is_whole_and_stays_bf16(parallel: dict[str, int], tokens: int) -> None:
    found = step(parallel=parallel, precision={"weights": "fp8"}).seconds("router")
    scores = moved(tokens * 2 * 4 * EXPERTS)  # fp32 scores written and read
    assert found == near(gemm(tokens, EXPERTS, H) + scores + norm(tokens))


def experts(rows: int, active: int, width: int = WIDTH, weight: float = 2, peak: float = PEAK) -> float:
    """One fused operator: weights of the active experts, rows in and out, and the halves between the GEMMs."""
    nbytes = active * 3 * H * width * weight + rows * 2 * (2 * H + 3 * width)
    return max(nbytes / HBM, 2 * 3 * H * width * rows / peak)


def test_only_the_experts_with_rows_are_read() -> None:
    found = step(routing=[[0, 1]]).seconds("experts")  # 32 tokens, all to the two experts of rank 0
    assert found.tolist() == [near(experts(64, 2)), 0, 0, 0]
    spread = step(routing=[[0, 2], [4, 6]]).seconds("experts")
    assert spread == near(experts(16, 1))


@pytest.mark.parametrize(("dtype", "weight", "peak"), [("bf16", 2, PEAK), ("fp8", 1, PEAK_FP8)])
@pytest.mark.parametrize(("phase", "rows"), [(DECODE, 16), (PREFILL, 8192)])
def test_expert_weights_by_dtype(dtype: str, weight: int, peak: float, phase: dict[str, Any], rows: int) -> None:
    found = step(EVEN, batch=phase, precision={"experts": dtype, "weights": "bf16"}).seconds("experts")
    assert found == near(experts(rows, 2, WIDTH, weight, peak))


@pytest.mark.parametrize(
    ("parallel", "rows", "active", "width"),
    [(tp(4), 64, 8, WIDTH // 4), (tp(2), 32, 8, WIDTH // 2),
     (tp(4, expert_parallel_size=2), 32, 4, WIDTH // 2), (tp(1, expert_tensor_parallel_size=4), 64, 8, WIDTH // 4)],
)  # fmt: skip
def test_experts_by_width_compute_the_rows_of_all_who_share_them(
    parallel: dict[str, int], rows: int, active: int, width: int
) -> None:
    """4 x 8 tokens x top-2 = 64 rows over 8 experts; an island of two ranks has 32."""
    assert step(parallel=parallel).seconds("experts") == near(experts(rows, active, width))


def test_training_prices_experts_as_gemms_of_each_ones_rows() -> None:
    rows = 4 * 2048 * 2 // 8
    forward = 2 * (gemm(rows, 2 * WIDTH, H) + gemm(rows, H, WIDTH)) + moved(2 * rows * 2 * 3 * WIDTH)
    found = step(EVEN, batch=TRAIN)
    order = moved(2 * rows * 4 * 2 * H)  # rows in order of their experts and back, read and written
    assert found.seconds("experts") == near(forward + order)
    sums = moved(4 * 2 * 3 * H * WIDTH)  # bf16 sums of the gradients of two experts, read and written
    assert found.seconds("experts_backward") == near(2 * forward + order + sums)


def test_gradient_sums_of_shared_experts_are_those_of_the_ranks_part() -> None:
    half, whole = (step(EVEN, batch=TRAIN, parallel=tp(2, expert_parallel_size=ep)) for ep in (1, 2))
    rows = 2 * 2048 * 2 // 8
    each = gemm(rows, 2 * WIDTH // 2, H) + gemm(rows, H, WIDTH // 2)
    forward = 8 * each + moved(8 * rows * 2 * 3 * WIDTH // 2)
    order = moved(8 * rows * 4 * 2 * H)
    assert half.seconds("experts_backward") == near(2 * forward + order + moved(4 * 8 * 3 * H * WIDTH / 2))
    assert whole.seconds("experts_backward").shape == (2,)


@pytest.mark.parametrize("ways", [1, 2, 4])
def test_the_head_is_split_over_the_rows_of_the_group(ways: int) -> None:
    ep = {"expert_parallel_size": 4}
    decode, prefill, train = (
        step(batch=b, parallel=tp(ways, **ep), precision={"weights": "fp8"}).seconds("head")
        for b in (DECODE, PREFILL, TRAIN)
    )
    for found, rows in ((decode, 8), (prefill, 4), (train, 2048)):  # a row a request; in training a row a token
        after = loss(rows) if found is train else 0  # of all the group's tokens, a part of the vocabulary
        assert found == near(gemm(rows * ways, VOCAB // ways, H) + after)


def test_an_odd_vocabulary_is_padded() -> None:
    found = step(model={**MODEL, "vocab_size": 6001}, parallel=tp(4)).seconds("head")
    assert found == near(gemm(32, 1501, H))


def test_backward_passes_take_their_factor_of_the_forward() -> None:
    """And their weights' gradients are added up: the bf16 sum is read and written, 4 bytes each (not the router's)."""
    found = step(batch=TRAIN)
    rows = 2048
    summed = {"mlp": 3 * H * DENSE, "shared": 3 * H * SHARED, "router": 0, "head": H * VOCAB}
    once = {"router": permuted(rows), "head": loss(rows)}  # moves the same both ways
    projections = gemm(rows, (HEADS + 2 * KV) * D, H) + gemm(rows, H, HEADS * D)
    attention = 2 * projections + 2.5 * core(2, 1024, 0, HEADS, KV) + 2 * norm(rows)
    own = (2 * HEADS * D + 2 * KV * D) * H
    assert found.seconds("attention_backward") == near(attention + rotary(rows) + moved(4 * own))
    for name, weights in summed.items():
        twice = 2 * found.seconds(name)[0] - once.get(name, 0)
        assert found.seconds(f"{name}_backward") == near(twice + moved(4 * weights))


def test_recomputed_attention_computes_its_core_again() -> None:
    plain, again = (
        step(batch=TRAIN, training={"recompute": list(modules)}).seconds("attention_backward")
        for modules in ((), ("core_attn",))
    )
    assert again - plain == near(core(2, 1024, 0, HEADS, KV))


def test_the_optimizer_moves_30_bytes_of_a_parameter_of_its_shard() -> None:
    """A bf16 gradient twice, for the norm and for itself, 24 of fp32 states, 2 of the parameter; and all of the rank's
    gradient sums are set to zero.
    """
    found = step(batch=TRAIN)
    attention = H * (HEADS + 2 * KV) * D + HEADS * D * H
    dense = 2 * attention + 3 * H * DENSE + 3 * H * SHARED + EXPERTS * H + 2 * VOCAB * H
    own_experts = 2 * 3 * H * WIDTH  # nobody else has them: EP 4 over 4 ranks
    assert found.seconds("optimizer") == near(moved(30 * (dense / 4 + own_experts) + 2 * (dense + own_experts)))


def test_latent_attention_by_hand() -> None:
    """DeepSeek-V3: queries meet the cached latent (512 + 64 numbers) in decode; 1,536 and 512 are its low ranks."""
    changes: dict[str, Any] = {"model": "deepseek-ai/DeepSeek-V3", "precision": {"weights": "bf16", "experts": "fp8"},
               "cluster": {"topology": "hgx-h200", "nodes": 4}, "batch": {**DECODE, "context": 1000},
               "parallel": {"data_parallel_size": 32, "expert_parallel_size": 32}}  # fmt: skip
    found = step(**changes).seconds("attention")
    hbm, h, heads = 4.8e12, 7168, 128  # H200 datasheet
    flops = 2 * 8 * 1001 * heads * (2 * 512 + 64)
    nbytes = 8 * heads * (128 + 64 + 128) * 2 + 8 * 1001 * (512 + 64) * 2
    shapes = ((1536 + 512 + 64, h), (heads * 192, 1536), (heads * 256, 512), (h, heads * 128))
    projections = sum(max((8 * (k + n) + n * k) * 2 / hbm, 2 * 8 * n * k / PEAK) for n, k in shapes)
    assert found == near(projections + max(flops / PEAK, nbytes / hbm) + 8 * 4 * 2 * h / hbm)


def test_sms_that_communication_holds_stretch_what_runs_beside_it() -> None:
    """DeepEP's normal kernels hold 20 of 132 SMs; without overlap nothing runs beside them."""
    changes: dict[str, Any] = {"costs": "h100_sxm", "comm": {"dispatch": "deepep_normal"}}
    plain, beside = (
        step(**changes, overlap={"schedule": name}, batch={**PREFILL, "context": context})
        for name, context in (("sequential", 2048), ("two_batch", 2048))
    )
    half = step(**changes, batch={**PREFILL, "tokens_per_gpu": 2048, "context": 2048})
    assert {plain.plan.stretch(node) for node in plain.plan.nodes(1, False)} == {1}
    for name in ("attention", "router", "experts", "mlp", "shared"):
        assert beside.seconds(name) == pytest.approx(half.seconds(name) * 132 / 112, rel=0.02)
    assert beside.seconds("attention") == near(half.seconds("attention")[0] * 132 / 112)


def test_host_time_comes_before_the_first_kernel() -> None:
    found = step(costs="h100_sxm", batch=PREFILL)
    assert found.seconds("host") == near(found.plan.ops.costs.host_seconds("prefill", 2))
    assert found.tasks("host")[0] == 0


def test_every_answer_is_noted() -> None:
    found = step(costs="h100_sxm", precision={"weights": "fp8"})
    lower(found.plan, found.built.batches)
    assert {"gemm", "grouped_gemm", "attention", "elementwise"} <= set(found.plan.ops.log.asked)
    assert np.all(np.array(list(found.plan.ops.log.asked.values())) > 0)


def test_answers_are_counted_once_and_none_of_the_roofline_lies_outside() -> None:
    log = step().plan.ops.log
    assert log.outside == dict.fromkeys(("attention", "elementwise", "gemm", "grouped_gemm"), 0)
    # four ranks: two projections a layer (priced once for both), two GEMMs of each FFN, the router's, and the head
    assert log.asked["gemm"] == 4 * (2 + 2 + 2 + 1 + 1) and log.asked["attention"] == 4


@pytest.mark.parametrize(("dispatch", "ranks", "passing"), [
    ("nccl", 2, set()), ("allgather_reducescatter", 2, {2 * 8 * TOP}), ("allgather_reducescatter", 1, set()),
])  # fmt: skip
def test_a_gathering_dispatch_hands_its_kernel_every_ranks_choices(
    monkeypatch: pytest.MonkeyPatch, dispatch: str, ranks: int, passing: set[int]
) -> None:
    """8 tokens a rank, 2 choices each: with one rank there is nobody to gather from."""
    asked: list[float] = []
    plain = Roofline.experts_of

    def listening(self: Roofline, *args: Any) -> Any:
        asked.extend(choice for one in args[5:] if one is not None for choice in np.ravel(one).tolist())
        return plain(self, *args)

    monkeypatch.setattr(Roofline, "experts_of", listening)
    step(comm={"dispatch": dispatch}, parallel={"data_parallel_size": ranks, "expert_parallel_size": ranks})
    assert set(asked) == passing


def test_latent_attention_puts_keys_and_values_together_in_training() -> None:
    """DeepSeek-V3's 128 heads: 192 numbers of a query rotated; 128 of a key read and 192 written, 128 of a value."""
    mla = load_model("deepseek-ai/DeepSeek-V3", "bf16").attention
    assert rotary_bytes(mla, 128, 128) == 2 * 128 * (2 * 192 + 128 + 192 + 2 * 128)


def test_rows_of_latent_experts_are_put_in_order_at_their_own_width() -> None:
    """Half as wide, half as many bytes; the sums of both projections' gradients are read and written."""
    narrow = step(EVEN, batch=TRAIN, model={**MODEL, "latent": H // 2})
    rows, tokens = 4 * 2048 * 2 // 8, 2048
    forward = 2 * (gemm(rows, 2 * WIDTH, H // 2) + gemm(rows, H // 2, WIDTH)) + moved(2 * rows * 2 * 3 * WIDTH)
    assert narrow.seconds("experts") == near(forward + moved(2 * rows * 4 * 2 * H // 2))
    twice = 2 * narrow.seconds("router")[0] - permuted(tokens) / 2
    assert narrow.seconds("router_backward") == near(twice + moved(4 * 2 * H * H // 2))


def test_only_what_comes_of_latents_is_projected_up_again() -> None:
    """Kimi-K3's output gate comes of the model's own width."""
    model = load_model("moonshotai/Kimi-K3", "bf16")
    mixer, batch = model.attention, Batch.of(1, [0], [0], 64, 0, Phase.PREFILL)
    costs, precision = Roofline(load_cluster("dgx-h100").devices[0], ()), Precision("bf16", "bf16", "bf16")
    ops = LayerOps(model, costs, precision, Spread(model), CostLog(), number=model.mixers.index(mixer))
    query = gemm(64, mixer.num_heads * mixer.query_head_dim, mixer.q_lora_rank)
    keys = gemm(64, mixer.num_heads * (mixer.qk_nope_head_dim + mixer.v_head_dim), mixer.kv_lora_rank)
    assert mixer.gated
    assert ops.up_projections(batch).total == near(query + keys)


def test_serving_has_an_engines_module_and_training_its_core() -> None:
    costs = load_costs("h200_sxm", load_cluster("hgx-h200").devices[0], "trtllm")
    model = load_model("deepseek-ai/DeepSeek-V3")
    ops = LayerOps(model, costs, Precision("fp8", "fp8", "bf16"), Spread(model), CostLog())
    one = np.ones(1, dtype=np.int64)
    rows = Alike(0 * one, 512 * one, 0 * one, one, one)
    (served,), (trained,) = ops.mixing("prefill", rows), ops.mixing("prefill", rows, training=True)
    assert (served.role, trained.role) == ("latent_prefill.bf16", "mla_prefill.bf16")
    shape, heads = model.attention, model.attention.num_heads
    assert trained.seconds == costs.attention("prefill", 512 * one, 0 * one, one, shape, heads, "bf16").seconds
    assert trained.seconds < served.seconds
