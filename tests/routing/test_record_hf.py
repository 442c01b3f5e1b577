"""Small transformers models built from a config are recorded, whatever their router returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 8},
    "qwen3_moe": {"num_experts": 8, "decoder_sparse_step": 1},
    "deepseek_v3": {
        "n_routed_experts": 8,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    },
    "gpt_oss": {"num_local_experts": 8},
    "olmoe": {"num_experts": 8},
    "llama4_text": {"num_local_experts": 8, "intermediate_size_mlp": 16, "interleave_moe_layer_step": 1},
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_is_recorded(family: str, tmp_path: Path) -> None:
    from moesim.routing.record_hf import record_texts

    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": family, **SMALL, **FAMILIES[family]}))
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"{name} " * 20)
    trace = record_texts(config, [tmp_path / "one.txt", tmp_path / "two.txt"], length=32)
    dense = FAMILIES[family].get("first_k_dense_replace", 0)
    assert trace.header.num_experts == 8 and trace.header.top_k == 2 and trace.header.moe_layers == 3 - dense
    assert trace.tokens == 160 and trace.header.domains == ("one", "two") and "random weights" in trace.header.origin
    assert trace.weight is not None and (np.diff(trace.weight, axis=2) <= 0).all()
