"""Hybrid models from the command line: what a linear layer costs and keeps, and how the basis of it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.models import known_models
from tests.cli.conftest import Moesim

FAST = ("network.level=port_load",)


def ran(moesim: Moesim, *sets: str) -> dict[str, Any]:
    options = [word for one in (*FAST, *sets) for word in ("--set", one)]
    done = moesim("run", "qwen3-next-decode-ep8", *options, "--seed", "0", "--json")
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def operator(document: dict[str, Any], label: str) -> float:
    return sum(float(one["seconds"]) for one in document["provenance"]["operators"] if one["label"] == label)


def test_states_do_not_grow_with_the_context(moesim: Moesim) -> None:
    short, long = (ran(moesim, f"batch.context={context}") for context in (2048, 32768))
    assert operator(long, "linear attention") == pytest.approx(operator(short, "linear attention"), rel=1e-6)
    assert operator(long, "attention core") > 5 * operator(short, "attention core")
    grown = long["metrics"]["peak_memory_bytes"]["value"] - short["metrics"]["peak_memory_bytes"]["value"]
    assert grown == pytest.approx(32 * 30720 * 12 * 2 * 512 * 2, rel=1e-4)  # keys and values of 12 layers


def test_the_memory_table_names_the_states(moesim: Moesim) -> None:
    done = moesim("run", "qwen3-next-decode-ep8", "--set", FAST[0], "--seed", "0")
    assert done.code == 0 and "linear attention states" in done.out and "gdn_decode.bf16" in done.out


def test_an_unmeasured_scan_shows(moesim: Moesim) -> None:
    found = ran(moesim, "model=NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "batch.context=2048")
    assert "nobody measured it" in found["provenance"]["kernels"]["mamba2_decode.bf16"]
    assert any("assumed, not measured" in text and "unmeasured kernels" in text for text in found["warnings"])


def test_prefill_and_training_of_a_hybrid(moesim: Moesim) -> None:
    prefill = ran(moesim, "batch={phase: prefill, tokens_per_gpu: 4096, context: 4096}")
    assert operator(prefill, "linear attention") > 0


def test_a_window_bounds_the_cache_and_the_core(moesim: Moesim) -> None:
    half, twice = (ran(moesim, "model=gpt-oss-20b", f"batch.context={context}") for context in (8192, 16384))
    grown = twice["metrics"]["peak_memory_bytes"]["value"] - half["metrics"]["peak_memory_bytes"]["value"]
    assert grown == pytest.approx(32 * 8192 * 12 * 8 * 128 * 2, rel=1e-4)  # 12 of 24 layers keep all


def test_precision_wins_over_an_unknown_quantisation(moesim: Moesim) -> None:
    config = json.loads(known_models()["mistralai/Mixtral-8x7B-v0.1"].read_text())
    Path("config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    words = ("run", "demo-tiny", "--set", "model=config.json", "--set", "routing={balanced: true}", "--json")
    done = moesim(*words, "--set", "precision={weights: bf16}", "--set", FAST[0], "--set", "batch.tokens_per_gpu=8")
    assert done.code == 0, done.err
    assert any("'awq' is not known" in text for text in json.loads(done.out)["warnings"])
    assert moesim(*words, "--set", "precision={}").code == 2
