"""A family's config.json, played from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


V4 = ("model=DeepSeek-V4-Flash", "cluster={topology: hgx-h200, nodes: 1}", "costs=auto", "precision={}",
      "routing={balanced: true}", "network.level=port_load")  # fmt: skip


def _v4(moesim: Moesim, *sets: str) -> Any:
    words = [word for one in (*V4, *sets) for word in ("--set", one)]
    done = moesim("run", "demo-tiny", "--seed", "0", "--json", *words)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_deepseek_v4_plays_measured_modules(moesim: Moesim) -> None:
    found = _v4(moesim, "batch={phase: decode, tokens_per_gpu: 32, context: 4096}")
    kernels = found["provenance"]["kernels"]
    assert {"csa_decode.fp8", "hca_decode.fp8", "hyper_pre.bf16", "hyper_post.bf16"} <= set(kernels)
    assert not any("nobody measured" in name for name in kernels.values())
    assert any("experts of the first 3 layers follow from a token's id" in text for text in found["warnings"])
    assert not any("is slower than bf16: the attention core" in text for text in found["warnings"])


def test_the_context_of_compressed_attention_costs_little(moesim: Moesim) -> None:
    """V4-Flash caches 3,440 bytes a token in fp8, 21 CSA layers of (512 + 128) / 4 and 20 HCA layers of 512 / 128."""
    near, far = (_v4(moesim, f"batch={{phase: decode, tokens_per_gpu: 16, context: {size}}}") for size in (4096, 65536))
    grown = [one["metrics"]["memory.kv_cache"]["value"] for one in (near, far)]
    assert grown[1] - grown[0] == pytest.approx(16 * 61440 * 3440, rel=1e-6)
    steps = [one["metrics"]["step_time_s"]["value"] for one in (near, far)]
    assert steps[0] < 1.5 * steps[1] and steps[1] < 1.5 * steps[0]


def test_deepseek_v4_is_not_trained(moesim: Moesim) -> None:
    sets = [word for one in V4 for word in ("--set", one)]
    done = moesim("run", "demo-tiny", *sets, "--set", "batch={phase: train, tokens_per_gpu: 64, context: 64}")
    assert done.code == 2 and "hyper-connections in 4 copies, whose backward pass is not modelled" in done.err


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
