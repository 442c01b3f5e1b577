"""Families with linear recurrences: published counts, tiny ones by hand, what they keep, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import Attention, Linear, MoEModel, known_models, load_model

JAMBA = {
    "model_type": "jamba", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 65536, "intermediate_size": 14336, "num_experts": 16,
    "num_experts_per_tok": 2, "attn_layer_period": 8, "attn_layer_offset": 4, "expert_layer_period": 2,
    "expert_layer_offset": 1, "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_expand": 2, "mamba_dt_rank": 256,
}  # fmt: skip
KIMI = {
    "model_type": "kimi_linear", "num_hidden_layers": 27, "hidden_size": 2304, "num_attention_heads": 32,
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "vocab_size": 163840, "num_experts": 256, "num_experts_per_token": 8, "moe_intermediate_size": 1024,
    "num_shared_experts": 1, "first_k_dense_replace": 1, "intermediate_size": 9216,
    "linear_attn_config": {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32,
                           "short_conv_kernel_size": 4},
}  # fmt: skip
MINIMAX = {
    "model_type": "minimax", "num_hidden_layers": 80, "hidden_size": 6144, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 200064, "num_local_experts": 32,
    "num_experts_per_tok": 2, "intermediate_size": 9216, "attn_type_list": [*[0] * 7, 1] * 10,
}  # fmt: skip


def read(folder: Path, config: dict[str, Any]) -> MoEModel:
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(folder)


def test_qwen3_next_counts_as_published() -> None:
    model = load_model("Qwen3-Next-80B-A3B-Instruct")
    assert model.total_parameters / 1e9 == pytest.approx(79.674, rel=1e-3)
    assert model.active_parameters / 1e9 == pytest.approx(3.875, rel=1e-3)
    assert model.mixer_of == (1, 1, 1, 0) * 12


def test_jamba_counts_as_published(tmp_path: Path) -> None:
    model = read(tmp_path, JAMBA)
    assert model.total_parameters / 1e9 == pytest.approx(51.570, rel=1e-3)
    assert model.active_parameters / 1e9 == pytest.approx(12.110, rel=1e-3)
    assert [layer for layer in range(32) if model.mixer_of[layer] == 0] == [4, 12, 20, 28]


@pytest.mark.parametrize(
    ("config", "total", "active", "within"),
    [(KIMI, 49.1, 3.48, 2e-3), (MINIMAX, 456.0, 45.9 + 2 * 200064 * 6144 / 1e9, 2e-3)],  # 45.9 B leaves embeddings out
)
def test_others_count_as_published(
    tmp_path: Path, config: dict[str, Any], total: float, active: float, within: float
) -> None:
    model = read(tmp_path, config)
    assert model.total_parameters / 1e9 == pytest.approx(total, rel=within)
    assert model.active_parameters / 1e9 == pytest.approx(active, rel=within)


@pytest.mark.parametrize(("name", "total"), [("35B-A3B", 35), ("122B-A10B", 122), ("397B-A17B", 397)])
def test_qwen3_5_has_the_size_of_its_name(name: str, total: float) -> None:
    """The name counts a vision tower of about 0.4 B that is not simulated."""
    assert load_model(f"Qwen3.5-{name}").total_parameters / 1e9 == pytest.approx(total, rel=0.011)


def test_nemotron_3_nano_keeps_its_layer_numbers() -> None:
    """31.6 B, 3.6 B with embeddings: its model card. Each layer is one block, as engines number them."""
    model = load_model("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    assert model.total_parameters / 1e9 == pytest.approx(31.6, rel=2e-3)
    assert model.active_parameters / 1e9 == pytest.approx(3.6, rel=8e-3)
    assert (model.num_layers, len(model.moe_layers), model.moe_layers[:3], model.dense_layers) == (52, 23, (1, 3, 6), 0)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("Super-120B-A12B-FP8", 120.6, 12.7), ("Ultra-550B-A55B-BF16", 550, 55)],
)
def test_nemotron_3_with_latent_experts_has_the_size_of_its_card(name: str, total: float, active: float) -> None:
    """A card counts 12.7 B active of Super; Ultra's name is rounded."""
    model = load_model(f"NVIDIA-Nemotron-3-{name}")
    assert model.total_parameters / 1e9 == pytest.approx(total, rel=2e-3)
    assert model.active_parameters / 1e9 == pytest.approx(active, rel=2e-2)


def test_latent_experts_and_whole_gates_by_hand(tmp_path: Path) -> None:
    """Kimi-K3's layers: experts in a latent space of 6, a gate for the output of both kinds of attention."""
    config = {
        "model_type": "kimi_linear", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
        "kv_lora_rank": 5, "q_lora_rank": 3, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4,
        "vocab_size": 10, "num_experts": 4, "num_experts_per_token": 1, "moe_intermediate_size": 7,
        "num_shared_experts": 1, "first_k_dense_replace": 0, "intermediate_size": 9, "routed_expert_hidden_size": 6,
        "mla_use_output_gate": True, "linear_attn_config": {
            "full_attn_layers": [2], "head_dim": 4, "num_heads": 2, "short_conv_kernel_size": 4,
            "use_full_rank_gate": True},
    }  # fmt: skip
    model = read(tmp_path, config)
    attends = 8 * (3 + 5 + 2) + 3 * 2 * 6 + 5 * 2 * 8 + 2 * 4 * 8 + 8 * 8
    recurs = 8 * (8 + 8 + 8 + 8 + 2) + 8 * 4 + 4 * 8 + 8 * 8 + 24 * 4
    layer = 4 * 3 * 6 * 7 + 2 * 8 * 6 + 3 * 8 * 7 + 4 * 8
    assert model.total_parameters == attends + recurs + 2 * layer + 2 * 80
    assert model.row_width == 6 and model.expert_gemms()[0].k == 6


def test_a_tiny_gated_delta_net_by_hand(tmp_path: Path) -> None:
    """One linear layer and one that attends, of width 8: 2 key heads and 4 value heads of 4; 2 heads of 4, 1 of them
    cached, queries with gates.
    """
    config = {
        "model_type": "qwen3_next", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "head_dim": 4,
        "num_key_value_heads": 1, "vocab_size": 10, "num_experts": 4, "num_experts_per_tok": 1,
        "moe_intermediate_size": 3, "shared_expert_intermediate_size": 5, "full_attention_interval": 2,
        "linear_num_key_heads": 2, "linear_key_head_dim": 4, "linear_num_value_heads": 4, "linear_value_head_dim": 4,
        "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    model = read(tmp_path, config)
    channels = 2 * 8 + 16
    linear = 8 * (2 * 8 + 2 * 16 + 2 * 4) + 16 * 8 + channels * 4
    attention = 8 * (2 * 8 + 2 * 4) + 8 * 8
    ffn = 4 * 3 * 8 * 3 + 3 * 8 * 5 + 4 * 8
    assert model.total_parameters == linear + attention + 2 * ffn + 2 * 80
    net = model.mixers[1]
    assert isinstance(net, Linear) and net.state_bytes() == 4 * 4 * 4 * 4 + channels * 3 * 2
    assert net.state_bytes(2) == 2 * 4 * 4 * 4 + channels // 2 * 3 * 2
    assert model.kv_bytes_per_token("bf16") == 1 * 2 * 4 * 2  # of the one layer that attends


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attn_layer_period": 0}, "attn_layer_period: is 0"),
        ({"expert_layer_offset": None}, "has no expert_layer_offset"),
        ({"mamba_d_state": "16"}, "is no count"),
    ],
)
def test_broken_jambas_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read(tmp_path, {**JAMBA, **change})


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        (MINIMAX, {"attn_type_list": [0, 2]}, "attn_type_list"),
        (MINIMAX, {"attn_type_list": "0"}, "no list of counts"),
        (KIMI, {"linear_attn_config": None}, "has no linear_attn_config"),
    ],
)
def test_other_broken_ones_are_refused(
    tmp_path: Path, config: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        read(tmp_path, {**config, **change})


@pytest.mark.parametrize("pattern", ["MEX", None, 7])
def test_a_pattern_of_unknown_letters(tmp_path: Path, pattern: Any) -> None:
    config = json.loads(known_models()["nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"].read_text())
    with pytest.raises(BadInput, match=r"hybrid_override_pattern.*M: mamba"):
        read(tmp_path, {**config, "hybrid_override_pattern": pattern})


def test_windows_of_gpt_oss_and_of_a_list(tmp_path: Path) -> None:
    model = load_model("gpt-oss-20b")
    windowed, layers = model.others[0]
    assert isinstance(windowed, Attention) and windowed.window == 128 and layers == tuple(range(0, 24, 2))
    assert windowed.cached_tokens(1000) == 128 and windowed.cached_tokens(50) == 50


GEMMA4 = {
    "model_type": "gemma4", "num_hidden_layers": 30, "hidden_size": 2816, "num_attention_heads": 16, "head_dim": 256,
    "num_key_value_heads": 8, "global_head_dim": 512, "num_global_key_value_heads": 2, "sliding_window": 1024,
    "vocab_size": 262144, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704,
    "intermediate_size": 2112, "enable_moe_block": True, "tie_word_embeddings": True,
    "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 5,
}  # fmt: skip
STEP = {
    "model_type": "step3p7", "num_hidden_layers": 45, "hidden_size": 4096, "num_attention_heads": 64, "head_dim": 128,
    "num_key_value_heads": 8, "vocab_size": 128896, "intermediate_size": 11264, "sliding_window": 512,
    "first_k_dense_replace": 3, "num_experts": 288, "num_experts_per_tok": 8, "moe_intermediate_size": 1280,
    "share_expert_dim": 1280, "layer_types": [*["full_attention", *["sliding_attention"] * 3] * 11, "full_attention"],
}  # fmt: skip
M3 = {
    "model_type": "minimax_m3", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "head_dim": 4,
    "num_key_value_heads": 1, "vocab_size": 10, "dense_intermediate_size": 20, "moe_intermediate_size": 6,
    "n_shared_experts": 1, "shared_intermediate_size": 6, "num_local_experts": 4, "num_experts_per_tok": 1,
    "moe_layer_freq": [0, 1],
}  # fmt: skip


@pytest.mark.parametrize(("config", "total", "active"), [(GEMMA4, 25.2, 3.8), (STEP, 196.0, 11.0)])
def test_windowed_families_have_their_published_sizes(
    tmp_path: Path, config: dict[str, Any], total: float, active: float
) -> None:
    """Published rounded: Gemma 4 26B-A4B 25.2 B and 3.8 B, Step 196 B and 11 B."""
    model = read(tmp_path, config)
    assert model.total_parameters / 1e9 == pytest.approx(total, rel=3e-3)
    assert model.active_parameters / 1e9 == pytest.approx(active, rel=2e-2)
    assert isinstance(model.mixers[1], Attention) and model.mixers[1].window > 0


def test_a_tiny_minimax_m3_by_hand(tmp_path: Path) -> None:
    """2 layers that attend (8 x (8 + 8) + 8 x 8), one FFN of 20, one of 4 experts and a shared one of 6."""
    attention, dense, experts = 8 * 16 + 64, 3 * 8 * 20, 4 * 3 * 8 * 6 + 3 * 8 * 6 + 4 * 8
    assert read(tmp_path, M3).total_parameters == 2 * attention + dense + experts + 2 * 80


def test_picked_blocks_have_an_indexer_in_the_layers_that_say_so(tmp_path: Path) -> None:
    """Two index queries and one key of 3 values, in the second of two layers: 8 x 3 x 3 parameters; bf16 keys."""
    said = {"use_sparse_attention": True, "sparse_attention_freq": [0, 1], "sparse_topk_blocks": 2,
            "sparse_block_size": 16, "sparse_num_index_heads": 2, "sparse_index_dim": 3}  # fmt: skip
    whole, picks = read(tmp_path, M3), read(tmp_path, {**M3, "sparse_attention_config": said})
    assert picks.total_parameters - whole.total_parameters == 8 * 3 * 3
    assert picks.kv_bytes_per_token("bf16") - whole.kv_bytes_per_token("bf16") == 3 * 2
    assert (picks.attention.selected, picks.mixer_of) == (32, (1, 0))
    with pytest.raises(BadInput, match="sparse_attention_freq"):
        read(tmp_path, {**M3, "sparse_attention_config": {**said, "sparse_attention_freq": [1]}})


def test_mimo_counts_both_kinds_of_heads() -> None:
    """309 B and 15 B: its model card. 39 of 48 layers keep 8 heads of a window of 128, 9 keep 4 of all tokens."""
    model = load_model("MiMo-V2-Flash")
    assert model.total_parameters / 1e9 == pytest.approx(309, rel=1e-3)
    assert [mixer.cached_values_per_token for mixer in model.mixers] == [4 * 320, 8 * 320]
    assert [layers for _, layers in model.mixed] == [9, 39]


@pytest.mark.parametrize("change", [{"enable_moe_block": False}, {"num_kv_shared_layers": 4}, {"layer_types": ["x"]}])
def test_gemmas_that_are_not_modelled(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(change))):
        read(tmp_path, {**GEMMA4, **change})
