"""Counts of shipped models against published sizes, and against sums that are written out by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from moesim.models import DTYPE_BYTES, known_models, load_model

DATA = Path(__file__).parents[1] / "data" / "models"
ROWS = list(csv.DictReader((DATA / "expected.csv").open(encoding="utf-8")))


@pytest.mark.parametrize("row", ROWS, ids=[row["config"] for row in ROWS])
def test_parameters_and_shape_match_the_published_model(row: dict[str, str]) -> None:
    model = load_model(row["config"].removesuffix("_config.json").replace("--", "/"))
    indexers = sum(  # which those counts leave out
        layers * sum(gemm.parameters for gemm in mixer.gemms(model.hidden_size) if gemm.name.startswith("index"))
        for mixer, layers in model.mixed
    )
    assert (model.total_parameters - indexers) / 1e9 == pytest.approx(
        float(row["total_params_B"]), abs=float(row["tolerance_B_total"])
    )
    assert (model.active_parameters - indexers) / 1e9 == pytest.approx(
        float(row["active_params_B"]), abs=float(row["tolerance_B_active"])
    )
    shape = (len(model.moe_layers), model.num_layers, model.num_experts, model.top_k)
    assert shape == tuple(int(row[key]) for key in ("moe_layers", "layers", "experts", "top_k"))
    assert (model.expert_intermediate, model.shared_intermediate) == (
        int(row["expert_ffn"]),
        int(row["shared_ffn_width"]),
    )


@pytest.mark.parametrize(
    ("name", "total", "active"),  # sizes on the model cards, in billions; active ones leave embeddings out
    [
        ("gpt-oss-20b", 20.9, 3.6),
        ("Llama-4-Scout-17B-16E-Instruct", 109, 17),
        ("Qwen3-VL-30B-A3B-Instruct", 30.5, 3.3),
        ("Kimi-K2.5-NVFP4", 1000, 32),
        ("DeepSeek-V3.2", 671, 37),
        ("GLM-5", 744, 40),
        ("MiMo-V2-Flash", 309, 15),
    ],
)
def test_sizes_on_model_cards(name: str, total: float, active: float) -> None:
    model = load_model(name)
    embeddings = model.embedding_parameters / 1e9
    assert model.total_parameters / 1e9 == pytest.approx(total, rel=0.03)
    assert model.active_parameters / 1e9 - embeddings < 1.03 * active < model.active_parameters / 1e9 * 1.05


def test_every_shipped_model_loads_under_its_full_and_short_name() -> None:
    assert len(known_models()) >= 30
    for name in known_models():
        model = load_model(name)
        assert model.name == name or name.endswith(".yaml")
        assert load_model(name.split("/")[-1].upper()) == model


def test_deepseek_v3_counted_by_hand() -> None:
    model = load_model("deepseek-ai/DeepSeek-V3")
    attention = 7168 * (1536 + 512 + 64) + 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    assert model.mixing_parameters == model.num_layers * attention
    assert model.expert_parameters == 3 * 7168 * 2048
    assert model.moe_layers == tuple(range(3, 61))
    assert (model.num_groups, model.topk_groups, model.mtp_layers) == (8, 4, 1)


def test_mla_caches_its_latent_and_gqa_its_heads() -> None:
    assert load_model("DeepSeek-V3").kv_bytes_per_token("bf16") == 61 * (512 + 64) * 2
    assert load_model("Qwen3-235B-A22B").kv_bytes_per_token("fp8") == 94 * 4 * (128 + 128)


@pytest.mark.parametrize("name", ["DeepSeek-V3", "Mixtral-8x7B-v0.1", "gpt-oss-120b"])
def test_the_gemms_of_all_ranks_together_are_the_layer(name: str) -> None:
    model = load_model(name)
    whole = {gemm.name: gemm.parameters for gemm in model.mixer_gemms()}
    for ways in (2, 4, 8):
        split = {gemm.name: gemm.parameters * ways for gemm in model.mixer_gemms(ways)}
        assert split.pop("qkv_down", 0) in {0, ways * whole.get("qkv_down", 0)}
        assert all(split[part] == whole[part] for part in split)


def test_forward_flops_are_two_per_active_parameter_plus_scores() -> None:
    model = load_model("Mixtral-8x7B-v0.1")
    lookup = model.vocab_size * model.hidden_size
    assert model.forward_flops(1, 0) == 2 * (model.active_parameters - lookup)
    scores = model.forward_flops(1, 1000) - model.forward_flops(1, 0)
    assert scores == 32 * 2 * 32 * (128 + 128) * 1000


@pytest.mark.parametrize(
    ("name", "dense", "experts"),
    [
        ("DeepSeek-V3", "fp8", "fp8"),
        ("gpt-oss-120b", "bf16", "fp4"),
        ("GLM-5.1-NVFP4", "bf16", "fp4"),
        ("Mixtral-8x7B-v0.1", "bf16", "bf16"),
    ],
)
def test_precision_comes_from_the_quantisation(name: str, dense: str, experts: str) -> None:
    model = load_model(name)
    assert (model.weight_dtype, model.expert_dtype) == (dense, experts)
    assert DTYPE_BYTES[dense] >= DTYPE_BYTES[experts]


@pytest.mark.parametrize("name", [name for name in known_models() if "NVFP4" in name])
def test_checkpoints_in_nvfp4_leave_attention_as_it_was_trained(name: str) -> None:
    """So `validate serving` takes rows of fp4 that name no checkpoint."""
    model = load_model(name)
    assert (model.weight_dtype, model.expert_dtype) == ("bf16", "fp4")


def test_experts_in_nvfp4_are_as_large_as_in_the_published_checkpoint() -> None:
    """GLM-5.2-NVFP4 on disk: 362 GB of packed fp4, 45 of fp8, its scales (vllm-project/recipes, pull request 586)."""
    model = load_model("GLM-5.2-NVFP4")
    experts = 3 * model.hidden_size * model.expert_intermediate * model.num_experts * len(model.moe_layers)
    assert experts * model.weight_bytes("fp4") / 1e9 == pytest.approx(362 + 45, abs=1)


def test_what_is_approximated_is_said() -> None:
    assert "chunked attention" in load_model("Llama-4-Maverick-17B-128E-Instruct").approximations[0]
    assert load_model("DeepSeek-V3.2").approximations == ()
    assert load_model("MiMo-V2-Flash").approximations == ()
    assert len(load_model("Llama-4-Maverick-17B-128E-Instruct").approximations) == 2
    assert load_model("DeepSeek-V3").approximations == ()


def test_the_routing_digest_names_the_routing_shape() -> None:
    digests = {load_model(name).routing_digest for name in known_models()}
    assert len(digests) == len(known_models())
