"""What one rank holds of each tensor, against arithmetic on the numbers of config.json."""

from __future__ import annotations

import pytest

from moesim.costs.sparse import core
from moesim.errors import BadInput
from moesim.layout import Layout, Placement, Spread, dense_parameters, expert_parameters
from moesim.models import load_model

DEEPSEEK, QWEN, MIXTRAL = (load_model(name) for name in ("DeepSeek-V3", "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1"))


def spread(model: str, *, world: int = 8, tp: int = 8, ep: int = 1, etp: int = 1, training: bool = False) -> Spread:
    return Spread.of(load_model(model), Layout(world, tp, ep, etp), training=training)


def test_mla_splits_heads_and_replicates_its_down_projections_and_latent() -> None:
    found = spread("DeepSeek-V3", ep=8)
    down = 7168 * (1536 + 512 + 64)  # q_lora, kv_lora and rotary key: whole on every rank
    heads = 1536 * 16 * 192 + 512 * 16 * (128 + 128) + 16 * 128 * 7168  # 16 of 128 heads
    assert sum(gemm.parameters for gemm in found.mixer_gemms()) == down + heads
    assert found.kv_bytes_per_token("bf16") == 61 * (512 + 64) * 2


def test_fewer_key_value_heads_than_ranks_are_replicated() -> None:
    shapes = {gemm.name: (gemm.n, gemm.k) for gemm in spread("Qwen3-30B-A3B", etp=8).mixer_gemms()}
    assert shapes == {"qkv": (4 * 128 + 2 * 1 * 128, 2048), "o": (2048, 4 * 128)}  # 4 of 32 heads, 1 of 4 KV heads
    assert spread("Qwen3-30B-A3B", etp=8).kv_bytes_per_token("bf16") == 48 * 1 * 256 * 2
    assert spread("Qwen3-30B-A3B", tp=4, etp=4).kv_bytes_per_token("bf16") == 48 * 1 * 256 * 2
    assert spread("Qwen3-30B-A3B", tp=2, etp=2).kv_bytes_per_token("fp8") == 48 * 2 * 256


def test_weights_of_a_deepseek_rank_by_part() -> None:
    own = spread("DeepSeek-V3", ep=8)
    parts = {part.name: own.held(part) for part in own.parts("fp8")}
    attention = 7168 * 2112 + (1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168) // 8
    assert parts == {
        "attention weights": 61 * attention,
        "dense FFN weights": 3 * 3 * 7168 * 18432 / 8,
        "shared expert weights": 58 * 3 * 7168 * 2048,  # whole: each rank serves its own slice of the tokens
        "router weights": 58 * 256 * 7168 * 2,
        "embedding weights": 2 * 129280 // 8 * 7168 * 2,
    }


def test_the_shared_expert_is_split_where_a_group_computes_all_its_tokens() -> None:
    whole, eighth = 3 * 7168 * 2048, 3 * 7168 * 256
    for ep, etp, training, one in ((8, 1, False, whole), (1, 8, False, eighth), (8, 1, True, eighth)):
        found = spread("DeepSeek-V3", ep=ep, etp=etp, training=training)
        assert sum(gemm.parameters for gemm in found.shared_gemms()) == one
    alone = spread("DeepSeek-V3", tp=1, ep=8)  # attention data parallel: dense FFN and shared expert are replicated
    assert sum(gemm.parameters for gemm in (*alone.shared_gemms(), *alone.dense_gemms())) == whole * 10
    assert alone.words == ""


def test_experts_are_split_by_width() -> None:
    found = spread("Mixtral-8x7B-v0.1", world=2, tp=2, etp=2)
    assert [(gemm.n, gemm.k) for gemm in found.expert_gemms()] == [(2 * 7168, 4096), (4096, 7168)]
    both = expert_parameters(found, Placement.contiguous(32, 8, 1))
    assert both == 32 * 8 * 3 * 4096 * 14336 // 2


@pytest.mark.parametrize("name", ["Mixtral-8x7B-v0.1", "Qwen3-30B-A3B", "gpt-oss-120b"])
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_without_replicas_the_ranks_together_hold_the_model(name: str, tp: int) -> None:
    model = load_model(name)
    found = spread(name, tp=tp, etp=tp)
    slots = Placement.contiguous(len(model.moe_layers), model.num_experts, 1)
    router = model.num_experts * model.hidden_size * len(model.moe_layers)  # on every rank
    together = tp * (dense_parameters(found) - router + expert_parameters(found, slots)) + router
    padding = (-model.vocab_size % tp) * model.hidden_size * 2
    assert together == model.total_parameters + padding


def test_groups_of_shared_experts() -> None:
    layout = Layout(8, 4, 2, 2)
    assert layout.islands().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert layout.expert_tensor_groups().tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.expert_groups().tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.expert_data_groups().tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert (layout.island, layout.expert_data_parallel) == (4, 2)


@pytest.mark.parametrize(
    ("model", "degrees", "said"),
    [
        ("Qwen3-30B-A3B", (64, 64, 64, 1), "32 heads do not divide over tensor_parallel_size 64. Try: .*: 16 or 32"),
        ("Qwen3-235B-A22B", (24, 3, 3, 1), "64 heads do not divide over tensor_parallel_size 3. Try: .*: 2 or 4"),
        ("gpt-oss-20b", (256, 1, 1, 128), "2880 columns of an expert .*_size 128. Try: .*: 32 or 64"),
        ("DeepSeek-V3", (16, 8, 3, 1), "expert_parallel_size 3 does not divide 16"),
        ("DeepSeek-V3", (8, 8, 4, 1), "multiple of tensor_parallel_size 8. Try: expert_tensor_parallel_size: 2"),
        ("DeepSeek-V3", (8, 2, 8, 2), "has to divide 8 GPUs .* Try: expert_tensor_parallel_size: 1"),
    ],
)
def test_what_cannot_be_shared_names_the_nearest_that_can(model: str, degrees: tuple[int, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Spread.of(load_model(model), Layout(*degrees), training=False)


def test_ledger_and_prices_count_one_cache_of_sparse_attention() -> None:
    """DeepSeek-V3.2 in bf16: 61 layers of 576 latent values in 2 bytes, and 128 index values in 1, as it reads."""
    one = spread("DeepSeek-V3.2", ep=8)
    assert one.kv_bytes_per_token("bf16") == 61 * (576 * 2 + 128)
    shape = one.model.attention
    more, less = (float(core(1, context, 1, shape, "bf16").bytes) for context in (1024, 1023))
    assert more - less == one.kv_bytes_per_token("bf16") / 61
