"""A family's config.json, played from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Moesim


def test_a_tiny_qwen2_moe_runs(moesim: Moesim, tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2_moe",
        "num_hidden_layers": 4,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 2048,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = f"model={tmp_path / 'config.json'}"
    done = moesim("run", "demo-tiny", "--set", model, "--set", "routing={balanced: true}", "--seed", "0", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]
