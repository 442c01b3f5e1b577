"""Families by published counts and by hand; shapes as their public config.json files on Hugging Face state them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import Attention, MoEModel, load_model


def _shape(kind: str, layers: int, hidden: int, heads: int, kv: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        **more,
    }


def _moe(names: str, experts: int, top: int, width: int, *, number: str = "num_experts") -> dict[str, Any]:
    return {number: experts, "num_experts_per_tok": top, names: width}


WIDE, NARROW = "intermediate_size", "moe_intermediate_size"
LATENT = {"kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
PUBLISHED = [
    (
        _shape(
            "qwen2_moe", 24, 2048, 16, 16, 151936, shared_expert_intermediate_size=5632, **_moe(NARROW, 60, 4, 1408)
        ),
        (14.316, 2.689),
    ),
    (
        _shape(
            "qwen2_moe", 28, 3584, 28, 4, 151936, shared_expert_intermediate_size=20480, **_moe(NARROW, 64, 8, 2560)
        ),
        (57.409, 14.249),
    ),
    (_shape("phimoe", 32, 4096, 32, 8, 32064, **_moe(WIDE, 16, 2, 6400, number="num_local_experts")), (41.873, 6.641)),
    (
        _shape(
            "granitemoe",
            32,
            1536,
            24,
            8,
            49155,
            tie_word_embeddings=True,
            **_moe(WIDE, 40, 8, 512, number="num_local_experts"),
        ),
        (3.299, 0.883),
    ),
    (
        _shape(
            "deepseek_v2",
            27,
            2048,
            16,
            16,
            102400,
            n_shared_experts=2,
            first_k_dense_replace=1,
            intermediate_size=10944,
            **LATENT,
            **_moe(NARROW, 64, 6, 1408, number="n_routed_experts"),
        ),
        (15.706, 2.661),
    ),
]


def _load(folder: Path, config: dict[str, Any]) -> MoEModel:
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(folder / "config.json")


@pytest.mark.parametrize(("config", "billions"), PUBLISHED)
def test_counts_are_the_published_ones(tmp_path: Path, config: dict[str, Any], billions: tuple[float, float]) -> None:
    model = _load(tmp_path, config)
    assert model.total_parameters / 1e9 == pytest.approx(billions[0], rel=1e-3)
    assert model.active_parameters / 1e9 == pytest.approx(billions[1], rel=1e-3)


# 3 layers, hidden 8, 2 heads of 4, both with keys of their own, 10 words: attention 4 x 8 x 8, embeddings 2 x 10 x 8
ATTENTION, WORDS, EXPERT = 256, 160, 3 * 8 * 5
TINY = {
    "olmoe": (_moe(WIDE, 4, 2, 5), 3 * (4 * EXPERT + 32)),
    "dots1": (
        {
            **_moe(NARROW, 4, 2, 5, number="n_routed_experts"),
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            WIDE: 7,
        },
        2 * (6 * EXPERT + 32) + 3 * 8 * 7,
    ),
    "glm4_moe": (
        {
            **_moe(NARROW, 4, 2, 5, number="n_routed_experts"),
            "n_shared_experts": 1,
            "first_k_dense_replace": 2,
            WIDE: 7,
        },
        (5 * EXPERT + 32) + 2 * 3 * 8 * 7,
    ),
    "ernie4_5_moe": (
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            NARROW: 5,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": -1,
            WIDE: 7,
        },
        2 * (5 * EXPERT + 32) + 3 * 8 * 7,
    ),
    "hunyuan_v1_moe": (
        {"num_experts": 4, "moe_topk": [2, 2, 2], NARROW: [5, 5, 5], "num_shared_expert": [1, 1, 1]},
        3 * (5 * EXPERT + 32),
    ),
    "llama4_text": (
        {**_moe(WIDE, 4, 2, 5, number="num_local_experts"), "interleave_moe_layer_step": 3, "intermediate_size_mlp": 7},
        (5 * EXPERT + 32) + 2 * 3 * 8 * 7,
    ),
}


@pytest.mark.parametrize("kind", TINY)
def test_a_tiny_model_is_counted_by_hand(tmp_path: Path, kind: str) -> None:
    names, ffn = TINY[kind]
    model = _load(tmp_path, _shape(kind, 3, 8, 2, 2, 10, **names))
    assert model.total_parameters == 3 * ATTENTION + WORDS + ffn
    assert model.total_parameters - model.active_parameters == 2 * EXPERT * len(model.moe_layers)


def test_layers_that_differ_are_refused(tmp_path: Path) -> None:
    names = {**TINY["hunyuan_v1_moe"][0], "moe_topk": [2, 2, 1]}
    with pytest.raises(BadInput, match="layers that differ"):
        _load(tmp_path, _shape("hunyuan_v1_moe", 3, 8, 2, 2, 10, **names))


def test_layers_that_share_picks_have_no_indexer(tmp_path: Path) -> None:
    latent = {**LATENT, "q_lora_rank": 32, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 64}
    config = _shape("glm_moe_dsa", 4, 128, 8, 8, 1000, first_k_dense_replace=1, intermediate_size=256,
                    **latent, **_moe(NARROW, 8, 2, 64, number="n_routed_experts"))  # fmt: skip
    full = _load(tmp_path, config)
    mixed = _load(tmp_path, config | {"indexer_types": ["full", "full", "shared", "shared"]})
    assert full.total_parameters - mixed.total_parameters == 2 * (32 * 4 * 16 + 128 * (16 + 4))
    assert mixed.mixer_of == (0, 0, 1, 1) and isinstance(mixed.mixers[1], Attention)
    assert mixed.mixers[1].index_heads == 0 and mixed.mixers[1].selected == 64
    assert full.kv_bytes_per_token("bf16") == 4 * (2 * (512 + 64) + 16)  # index keys in fp8
    with pytest.raises(BadInput, match="full or shared"):
        _load(tmp_path, config | {"indexer_types": ["full"]})


LONGCAT = {
    "model_type": "longcat_flash", "num_layers": 28, "hidden_size": 6144, "num_attention_heads": 64,
    "vocab_size": 131072, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512,
    "zero_expert_num": 256, "moe_topk": 12, **(LATENT | {"q_lora_rank": 1536}),
}  # fmt: skip


def test_a_longcat_layer_attends_twice_and_a_third_of_its_experts_does_nothing(tmp_path: Path) -> None:
    model = _load(tmp_path, LONGCAT)
    attention = 6144 * (1536 + 576) + 1536 * 64 * 192 + 512 * 64 * 256 + 64 * 128 * 6144
    dense, expert, ends = 3 * 6144 * 12288, 3 * 6144 * 2048, 2 * 131072 * 6144
    same = 28 * (2 * attention + 2 * dense + 512 * 6144) + ends
    assert model.total_parameters == same + 28 * 512 * expert and model.active_parameters == same + 28 * 8 * expert
    assert model.total_parameters / 1e9 == pytest.approx(560, rel=0.005)  # published: 560, and 27 on average
    assert (model.active_parameters - ends / 2) / 1e9 == pytest.approx(27, rel=0.01)
    assert "8 choices of every token" in " ".join(model.approximations)


def test_longcat_without_empty_experts_plays_all_its_choices(tmp_path: Path) -> None:
    model = _load(tmp_path, LONGCAT | {"zero_expert_num": 0})
    assert model.top_k == 12 and model.num_layers == 56 and len(model.approximations) == 1
    with pytest.raises(BadInput, match="n_routed_experts"):
        _load(tmp_path, LONGCAT | {"n_routed_experts": 0})
