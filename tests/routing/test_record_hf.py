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
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
GROUPED = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "n_shared_experts": 1}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {**GROUPED, **LATENT},
    "deepseek_v3": {**GROUPED, **LATENT},
    "ernie4_5_moe": {"moe_num_experts": 8, "moe_k": 2, "moe_layer_start_index": 1},
    "flex_olmo": {"num_experts": 8},
    "gemma4_text": {"num_experts": 8, "enable_moe_block": True, "top_k_experts": 2},
    "glm4_moe": GROUPED,
    "gpt_oss": {"num_local_experts": 8},
    "granitemoe": {"num_local_experts": 8},
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2},
    "llama4_text": {"num_local_experts": 8, "intermediate_size_mlp": 16, "interleave_moe_layer_step": 1},
    "minimax_m2": {"num_local_experts": 8},
    "mixtral": {"num_local_experts": 8},
    "olmoe": {"num_experts": 8},
    "phimoe": {"num_local_experts": 8},
    "qwen2_moe": {"num_experts": 8, "decoder_sparse_step": 1},
    "qwen3_moe": {"num_experts": 8, "decoder_sparse_step": 1},
    "qwen3_next": {"num_experts": 8, "decoder_sparse_step": 1, **LINEAR},
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_is_recorded(family: str, tmp_path: Path) -> None:
    from moesim.routing.record_hf import record_texts

    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": family, **SMALL, **FAMILIES[family]}))
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"{name} " * 20)
    trace = record_texts(config, [tmp_path / "one.txt", tmp_path / "two.txt"], length=32)
    dense = FAMILIES[family].get("first_k_dense_replace", FAMILIES[family].get("moe_layer_start_index", 0))
    assert trace.header.num_experts == 8 and trace.header.top_k == 2 and trace.header.moe_layers == 3 - dense
    assert trace.tokens == 160 and trace.header.domains == ("one", "two") and "random weights" in trace.header.origin
    assert trace.weight is not None and (np.diff(trace.weight, axis=2) <= 0).all()


def test_what_transformers_cannot_build_or_run_is_bad_input(tmp_path: Path) -> None:
    from moesim.errors import BadInput
    from moesim.routing.record_hf import record_texts

    (tmp_path / "text.txt").write_text("text")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "mixtral", **SMALL, "hidden_size": 15}))
    with pytest.raises(BadInput, match="transformers cannot build it|does not run"):
        record_texts(config, [tmp_path / "text.txt"])


def test_zero_experts_are_no_experts() -> None:
    import torch

    from moesim.routing.record import Recorder
    from moesim.routing.trace import TraceHeader

    chosen = torch.tensor([[0, 5], [7, 4]])
    router = torch.nn.Identity()
    with Recorder(router, routers=lambda name, module: True) as recorder:
        router(chosen)
        recorder.mark(request=[0, 0], position=[0, 1])
    header = TraceHeader(model="own", moe_layers=1, num_experts=5, top_k=2, origin="hand-written")
    trace = recorder.trace(header, zero_experts=3)
    assert trace.expert[:, 0].tolist() == [[0, 65535], [65535, 4]]
