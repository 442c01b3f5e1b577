"""DeepSeek-V4: counts as published, and its attention by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import Compressed, MoEModel, known_models, load_model, load_trained

FLASH, PRO = (f"deepseek-ai/DeepSeek-V4-{size}" for size in ("Flash", "Pro"))
SMALL = Compressed("mla", 8, 8, 16, 16, 24, window=4, ratio=4, out_rank=12, out_groups=2, selected=3, index_heads=2,
                   index_dim=10)  # fmt: skip


@pytest.mark.parametrize(("name", "total", "active"), [(FLASH, 284, 13), (PRO, 1573, 49)])
def test_counts_are_the_published_ones(name: str, total: int, active: int) -> None:
    """284 B with 13 B active, 1.6 T with 49 B active: looking up the input embedding is not counted as active there."""
    model = load_model(name)
    looked_up = model.vocab_size * model.hidden_size
    assert round(model.total_parameters / 1e9) == total
    assert round((model.active_parameters - looked_up) / 1e9) == active
    assert (model.weight_dtype, model.expert_dtype, model.kv_dtype) == ("fp8", "fp4", "fp8")


def _kinds(model: MoEModel) -> dict[int, int]:
    return {mixer.ratio: layers for mixer, layers in model.mixed if isinstance(mixer, Compressed)}


def test_layers_attend_as_the_list_of_ratios_says() -> None:
    assert _kinds(load_model(FLASH)) == {4: 21, 128: 20, 0: 2}
    assert _kinds(load_model(PRO)) == {4: 30, 128: 31}


def test_parameters_of_a_layer_by_hand() -> None:
    every = sum(gemm.parameters for gemm in SMALL.gemms(64))
    projections = 64 * (24 + 16) + 24 * 8 * 16 + 8 * 16 * 12 + 2 * 12 * 64
    compressor, indexer = 64 * 2 * 2 * 16, 24 * 2 * 10 + 64 * (2 * 2 * 10 + 2)
    assert every == projections + compressor + indexer
    heavy = replace(SMALL, ratio=128, selected=0, index_heads=0, index_dim=0)
    assert sum(gemm.parameters for gemm in heavy.gemms(64)) == projections + 64 * 2 * 16
    assert sum(gemm.parameters for gemm in replace(heavy, ratio=0).gemms(64)) == projections


def test_a_block_is_cached_once_and_a_window_for_a_sequence() -> None:
    assert (SMALL.cached_values_per_token, SMALL.index_bytes_per_token) == (16 / 4, 10 / 4)
    unfinished = 2 * 4 * (2 * 4) * 2 * (16 + 10)  # values and scores in fp32, of two overlapping blocks of two widths
    assert SMALL.state_bytes() == 4 * 16 + unfinished
    assert load_model(FLASH).kv_bytes_per_token("fp8") == 21 * (512 + 128) / 4 + 20 * 512 / 128


def test_groups_of_the_output_are_shared_whole() -> None:
    assert SMALL.uneven(2) == "" and SMALL.uneven(4) == "2 groups of the output" and SMALL.uneven(3) == "8 heads"
    half = SMALL.with_heads(4)
    assert half.out_groups == 1 and half.gemms(64) == SMALL.gemms(64, 2)


def _changed(folder: Path, **keys: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(known_models()[FLASH].read_text()), **keys}))
    return path


@pytest.mark.parametrize("ratios", [[4, 128], [4, -1] * 22, "4"])
def test_ratios_that_do_not_fit_are_refused(tmp_path: Path, ratios: Any) -> None:
    with pytest.raises(BadInput, match="compress_ratios"):
        load_model(_changed(tmp_path, compress_ratios=ratios))


@pytest.mark.parametrize("key", ["head_dim", "q_lora_rank", "sliding_window", "o_groups", "o_lora_rank", "index_topk"])
def test_widths_of_nothing_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadInput, match=f"{key}: is 0"):
        load_model(_changed(tmp_path, **{key: 0}))


def test_groups_and_dtypes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="64 heads are not shared evenly by 7"):
        load_model(_changed(tmp_path, o_groups=7))
    with pytest.raises(BadInput, match="'int3' is not known"):
        load_model(_changed(tmp_path, expert_dtype="int3"))


def test_modelopts_mixed_file_names_its_experts(tmp_path: Path) -> None:
    said: dict[str, Any] = {"quant_method": "fp8", "quant_algo": "MIXED_PRECISION", "moe_quant_algo": "NVFP4"}
    model = load_model(_changed(tmp_path, quantization_config=said, expert_dtype=None))
    assert (model.weight_dtype, model.expert_dtype) == ("fp8", "fp4")
    layers = {"layers.0.mlp.experts": {"quant_algo": "W4A16_NVFP4"}, "layers.0.self_attn.q_proj": {"quant_algo": "FP8"}}
    said = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    model = load_model(_changed(tmp_path, quantization_config=said, expert_dtype=None))
    assert (model.weight_dtype, model.expert_dtype) == ("fp8", "fp4")
    torn = {**said, "quantized_layers": {**layers, "layers.1.mlp.experts": {"quant_algo": "FP8"}}}
    with pytest.raises(BadInput, match="'mixed_precision' was not checked"):
        load_model(_changed(tmp_path, quantization_config=torn, expert_dtype=None))


def test_it_is_not_trained() -> None:
    with pytest.raises(BadInput, match="hyper-connections in 4 copies, whose backward pass is not modelled"):
        load_trained(FLASH)
