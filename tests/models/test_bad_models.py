"""Configs that must be refused, each with its place and a way out, and never read as something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import known_models, load_model

DATA = Path(__file__).parents[1] / "data" / "models"
Edited = Callable[..., Path]


@pytest.fixture
def mixtral(tmp_path: Path) -> Edited:
    """Writes Mixtral's config with some keys changed."""

    def write(**changes: Any) -> Path:
        config = json.loads(known_models()["mistralai/Mixtral-8x7B-v0.1"].read_text())
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**config, **changes}))
        return path

    return write


def refused(source: Any) -> str:
    with pytest.raises(BadInput) as error:
        load_model(source)
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize("family", ["gpt2", None])
def test_a_family_that_was_not_checked_is_refused_with_the_list(mixtral: Edited, family: str | None) -> None:
    text = refused(mixtral(model_type=family))
    assert (
        repr(family) in text
        and "deepseek_v3, deepseek_v32, deepseek_v4, dots1, ernie4_5_moe" in text
        and "inline" in text
    )


def test_a_dense_family_that_names_experts_is_refused(mixtral: Edited) -> None:
    assert "'llama' has no experts, but num_local_experts is 8" in refused(mixtral(model_type="llama"))


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"model_type": "newmoe"}, "mixtral"),
        (
            {"model_type": "newmoe", "num_local_experts": None, "num_experts": 8, "moe_intermediate_size": 64},
            "qwen3_moe",
        ),
        ({"model_type": "newmoe", "kv_lora_rank": 512, "n_routed_experts": 8}, "deepseek_v3"),
        ({"model_type": "newlm", "num_local_experts": None}, "llama"),
    ],
)
def test_the_nearest_family_is_named(mixtral: Edited, changes: dict[str, Any], family: str) -> None:
    assert f"its keys are like those of {family}" in refused(mixtral(**changes))


def test_weights_that_are_given_win_over_an_unknown_quantisation(mixtral: Edited) -> None:
    path = mixtral(quantization_config={"quant_method": "awq"})
    assert "precision.weights" in refused(path)
    model = load_model(path, "fp8")
    assert (model.weight_dtype, model.expert_dtype) == ("fp8", "fp8")
    assert model.approximations == ("quantisation 'awq' is not known: weights are taken as fp8, as given",)


def test_an_unknown_name_gets_the_nearest_one() -> None:
    assert "did you mean 'deepseek-ai/DeepSeek-V3'" in refused("deepseek-ai/DeepSek-V3")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_local_experts": 0}, "top-2 of 0 experts"),
        ({"num_experts_per_tok": 9}, "top-9 of 8 experts"),
        ({"num_experts_per_tok": -1}, "num_experts_per_tok: -1 is no count"),
        ({"num_local_experts": 70000}, "of 70000 experts"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 7}, "unevenly"),
        ({"hidden_size": "4096"}, "'4096' is no count"),
        ({"hidden_size": True}, "True is no count"),
        ({"hidden_size": 1e3}, "1000.0 is no count"),
        ({"num_hidden_layers": 99_999_999}, "more than 10000 layers"),
        ({"vocab_size": 10**400}, "is no count"),
        ({"intermediate_size": None}, "has no intermediate_size"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "'compressed-tensors' was not checked"),
    ],
)
def test_an_impossible_value_is_named(mixtral: Edited, changes: dict[str, Any], said: str) -> None:
    text = refused(mixtral(**changes))
    assert said in text and "config.json" in text


@pytest.mark.parametrize("frequency", [0, -1, True, "all", [0, 1], [0, 2] + [1] * 46])
def test_a_layer_frequency_that_says_nothing(tmp_path: Path, frequency: Any) -> None:
    config = json.loads(known_models()["XiaomiMiMo/MiMo-V2-Flash"].read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "moe_layer_freq": frequency}))
    assert "moe_layer_freq" in refused(path)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"[1]", "no object"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"\xff\xfe\x00", "no UTF-8 text"),
        (b" " * (17 << 20), "larger than"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(raw)
    assert said in refused(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.json")


def test_a_quantisation_promised_only_by_the_name_is_said(tmp_path: Path) -> None:
    path = tmp_path / "Mixtral-NVFP4_config.json"
    shutil.copy(known_models()["mistralai/Mixtral-8x7B-v0.1"], path)
    assert load_model(path).approximations == (
        "the name says nvfp4 but quantization_config and hf_quant_config.json are missing: weights are taken as bf16",
    )


def test_fp4_beyond_the_experts_is_said() -> None:
    sentence = "weights of shared_experts are taken as bf16; the checkpoint has them in fp4"
    assert sentence in load_model("Kimi-K2.5-NVFP4").approximations
    assert not any("fp4" in line for line in load_model("Kimi-K2.6-NVFP4").approximations)
    assert not any("fp4" in line for line in load_model("gpt-oss-120b").approximations)


def test_a_byte_order_mark_and_crlf_are_read(tmp_path: Path) -> None:
    text = known_models()["mistralai/Mixtral-8x7B-v0.1"].read_text().replace("\n", "\r\n")
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_model(path).num_experts == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoder_sparse_step": 0}, "decoder_sparse_step: is 0"),
        ({"mlp_only_layers": 3}, "mlp_only_layers: 3 is no list of counts"),
        ({"model_type": ["qwen3_moe"]}, "model_type: .* is no name"),
    ],
)
def test_a_key_of_the_wrong_shape_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    base = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
            "vocab_size": 100, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({**base, **change}))
    with pytest.raises(BadInput, match=said):
        load_model(tmp_path)
