"""A family's config.json, played from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


def test_latent_experts_send_narrow_rows(moesim: Moesim, tmp_path: Path) -> None:
    """Half as wide a row: half the bytes from node to node, and half the weights of the experts."""
    found = []
    for latent in (0, 512):
        text = f"""name: own
hidden_size: 1024
num_layers: 2
vocab_size: 1000
attention: {{num_heads: 8, num_kv_heads: 2, head_dim: 128}}
num_experts: 16
top_k: 2
expert_intermediate: 512
latent: {latent}
"""
        (tmp_path / "own.yaml").write_text(text)
        sizes = [f"parallel.{name}_parallel_size=16" for name in ("data", "expert")]
        sets = [f"model={tmp_path / 'own.yaml'}", "cluster.nodes=2", "routing={balanced: true}", *sizes]
        done = moesim("run", "demo-tiny", "--seed", "0", "--json", *(word for one in sets for word in ("--set", one)))
        assert done.code == 0, done.err
        metrics = json.loads(done.out)["metrics"]
        found.append([metrics[name]["value"] for name in ("nic_bytes", "memory.expert_weights")])
    assert found[1] == pytest.approx([value / 2 for value in found[0]], rel=0.005)  # counts of rows are as many
