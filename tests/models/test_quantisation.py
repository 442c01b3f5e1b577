"""Checkpoints quantised by NVIDIA's ModelOpt say so beside config.json; what cannot be known is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import known_models, load_model

GATES = [f"model.layers.{layer}.mlp.gate" for layer in range(94)]


def folder(tmp_path: Path, model: str, quantised: dict[str, Any] | None, **changes: Any) -> Path:
    """A checkpoint's folder with the config of `model` and a hf_quant_config.json."""
    place = tmp_path / "Some-Model-NVFP4"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({**json.loads(known_models()[model].read_text()), **changes}))
    if quantised is not None:
        (place / "hf_quant_config.json").write_text(json.dumps({"producer": {}, "quantization": quantised}))
    return place


def dtypes(place: Path) -> tuple[str, str, str]:
    model = load_model(place)
    return model.weight_dtype, model.expert_dtype, model.kv_dtype


ATTENTION = ["lm_head", "model.layers.*.self_attn*"]


@pytest.mark.parametrize(
    ("model", "quantised", "found"),
    [
        ("Qwen/Qwen3-235B-A22B", {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": GATES},
         ("fp4", "fp4", "fp8")),
        ("Qwen/Qwen3-235B-A22B", {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "exclude_modules": ATTENTION},
         ("bf16", "fp4", "bf16")),
        ("Qwen/Qwen3-235B-A22B", {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
         ("fp8", "fp8", "fp8")),
        ("Qwen/Qwen3-235B-A22B", None, ("bf16", "bf16", "bf16")),
    ],
)  # fmt: skip
def test_a_folder_is_read_with_the_file_beside_its_config(
    tmp_path: Path, model: str, quantised: dict[str, Any] | None, found: tuple[str, str, str]
) -> None:
    place = folder(tmp_path, model, quantised)
    assert dtypes(place) == dtypes(place / "config.json") == found
    assert load_model(place).name == "Some-Model-NVFP4"


def test_parts_in_other_dtypes_are_said(tmp_path: Path) -> None:
    config = json.loads(known_models()["deepseek-ai/DeepSeek-V3"].read_text())
    assert "quantization_config" in config  # its own fp8: replaced by an NVFP4 release, as nvidia/DeepSeek-R1-FP4
    quantised = {"quant_algo": "NVFP4", "exclude_modules": ATTENTION}
    place = folder(tmp_path, "deepseek-ai/DeepSeek-V3", quantised, quantization_config=None)
    assert dtypes(place)[:2] == ("bf16", "fp4")
    assert (
        "weights of shared_experts are taken as bf16; the checkpoint has them in fp4"
        in load_model(place).approximations
    )


def test_a_name_that_promises_what_no_file_says(tmp_path: Path) -> None:
    notes = load_model(folder(tmp_path, "Qwen/Qwen3-235B-A22B", None)).approximations
    assert notes == (
        "the name says nvfp4 but quantization_config and hf_quant_config.json are missing: weights are taken as bf16",
    )


def test_a_method_nobody_checked_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"hf_quant_config\.json: quantisation 'w4a8_awq' was not checked"):
        load_model(folder(tmp_path, "Qwen/Qwen3-235B-A22B", {"quant_algo": "W4A8_AWQ"}))


def test_caches_that_config_json_says_are_fp8() -> None:
    assert load_model("Kimi-K2.6-NVFP4").kv_dtype == ("fp8" if _scheme("Kimi-K2.6-NVFP4") else "bf16")
    assert load_model("DeepSeek-V3").kv_dtype == "bf16"


def _scheme(name: str) -> bool:
    config = json.loads(next(path for full, path in known_models().items() if name in full).read_text())
    return bool(config["quantization_config"].get("kv_cache_scheme"))


def test_float32_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = json.loads(known_models()["mistralai/Mixtral-8x7B-v0.1"].read_text())
    path.write_text(json.dumps({**config, "torch_dtype": "float32"}))
    assert load_model(path).approximations == (
        "the checkpoint keeps its weights in float32: taken as bf16, as engines load them",
    )


def test_a_folder_is_not_taken_for_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "mine" / "DeepSeek-V3"
    place.mkdir(parents=True)
    (place / "config.json").write_text(known_models()["mistralai/Mixtral-8x7B-v0.1"].read_text())
    assert load_model("mine/DeepSeek-V3").num_experts == 8
    assert load_model("deepseek-ai/DeepSeek-V3").num_experts == 256


@pytest.mark.parametrize(("layers", "found"), [([1, 3, 5], (1, 3, 5)), (None, tuple(range(1, 48, 2)))])
def test_llama4_names_its_expert_layers(tmp_path: Path, layers: list[int] | None, found: tuple[int, ...]) -> None:
    config = json.loads(known_models()["meta-llama/Llama-4-Maverick-17B-128E-Instruct"].read_text())
    inner = {**config.get("text_config", config), "moe_layers": layers}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "text_config": inner} if "text_config" in config else inner))
    assert load_model(path).moe_layers == found


@pytest.mark.parametrize("layers", [[48], [1, 1], "all", [True], []])
def test_expert_layers_that_cannot_be(tmp_path: Path, layers: Any) -> None:
    config = json.loads(known_models()["meta-llama/Llama-4-Maverick-17B-128E-Instruct"].read_text())
    inner = {**config.get("text_config", config), "moe_layers": layers}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "text_config": inner} if "text_config" in config else inner))
    with pytest.raises(BadInput, match="moe_layers: .* is no list of layers below 48"):
        load_model(path)


def test_weights_in_fp4_have_a_byte_of_scale_for_16_or_32_of_them() -> None:
    """gpt-oss-120b in MXFP4: 36 layers of 128 experts of three 2880 x 2880 are 60.9 GB, 57.3 without scales; OpenAI
    tells 60.8 GiB of checkpoint, of which 2.2 GB are in bf16. NVFP4's experts are an eighth more than half a byte each.
    """
    model = load_model("gpt-oss-120b")
    assert 36 * 128 * 3 * 2880**2 * model.weight_bytes("fp4") == pytest.approx(60.9e9, rel=1e-3)
    assert load_model("Kimi-K2.6-NVFP4").weight_bytes("fp4") == 0.5 + 1 / 16
    assert load_model("DeepSeek-V4-Flash").weight_bytes("fp4") == 0.5 + 1 / 32
    assert model.weight_bytes("bf16") == 2
