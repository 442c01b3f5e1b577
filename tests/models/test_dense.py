"""Models without experts: published counts, and what they do not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import load_model, load_routed

SHIPPED = {"Meta-Llama-3.1-8B": 8.030, "Meta-Llama-3-70B": 70.554, "Qwen3-32B": 32.762}  # B, model cards' tensors
QWEN25_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "sliding_window": 131072,
    "use_sliding_window": False, "tie_word_embeddings": False,
}  # fmt: skip
MISTRAL_7B = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "sliding_window": 4096,
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_dense_models_count_as_published(name: str) -> None:
    model = load_model(name)
    assert model.total_parameters / 1e9 == pytest.approx(SHIPPED[name], rel=1e-3)
    assert model.active_parameters == model.total_parameters and not model.routed and model.approximations == ()


@pytest.mark.parametrize(("config", "billions", "windowed"), [(QWEN25_7B, 7.616, False), (MISTRAL_7B, 7.242, True)])
def test_other_dense_families(tmp_path: Path, config: dict[str, Any], billions: float, windowed: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_model(tmp_path)
    assert model.total_parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    assert (model.attention.window == 4096) == windowed


def test_a_tiny_one_by_hand(tmp_path: Path) -> None:
    """2 layers of 8 x 8 queries, 4 x 8 keys, 4 x 8 values, 8 x 8 out, 3 x 8 x 20; a table of 10 x 8, tied."""
    config = {
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2, "vocab_size": 10,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_model(tmp_path)
    assert model.total_parameters == 2 * (64 + 32 + 32 + 64 + 480) + 80
    assert model.kv_bytes_per_token("bf16") == 2 * 2 * 4 * 2
    assert model.forward_flops(1, 3) == 2 * model.total_parameters + 2 * 2 * 2 * (4 + 4) * 3


def test_verbs_about_experts_refuse_it() -> None:
    with pytest.raises(BadInput, match="Qwen3-32B has no experts"):
        load_routed("Qwen3-32B")
