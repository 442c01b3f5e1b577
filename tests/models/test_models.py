"""Models: counts against published sizes, families that were not checked, descriptions of one's own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from moesim.errors import BadInput
from moesim.models import known_models, load_model

DATA = Path(__file__).resolve().parents[1] / "data" / "models"
EXPECTED = list(csv.DictReader((DATA / "expected.csv").open(encoding="utf-8")))


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: str(row["config"]))
def test_counts_match_the_published_sizes(row: dict[str, str]) -> None:
    model = load_model(row["config"].removesuffix("_config.json").replace("--", "/"))
    assert model.total_parameters / 1e9 == pytest.approx(
        float(row["total_params_B"]), abs=float(row["tolerance_B_total"])
    )
    assert model.active_parameters / 1e9 == pytest.approx(
        float(row["active_params_B"]), abs=float(row["tolerance_B_active"])
    )
    shape = (len(model.moe_layers), model.num_layers, model.num_experts, model.top_k, model.expert_intermediate)
    assert shape == tuple(int(row[c]) for c in ("moe_layers", "layers", "experts", "top_k", "expert_ffn"))
    assert model.shared_intermediate == int(row["shared_ffn_width"])


def test_a_family_that_was_not_checked_is_refused_with_the_list() -> None:
    with pytest.raises(BadInput, match=r"model_type 'deepseek_v4'.*mixtral"):
        load_model(DATA / "deepseek_v4_config.json")


def test_short_names_and_unknown_names() -> None:
    assert load_model("deepseek-v3") == load_model("deepseek-ai/DeepSeek-V3")
    with pytest.raises(BadInput, match="did you mean"):
        load_model("deepseek-ai/DeepSeek-V33")


def test_what_is_approximated_is_said() -> None:
    assert "full attention" in load_model("gpt-oss-120b").approximations[0]
    assert load_model("Mixtral-8x7B-v0.1").approximations == ()


def test_mla_caches_its_latent_and_gqa_its_heads() -> None:
    assert load_model("DeepSeek-V3").kv_bytes_per_token("bf16") == 61 * (512 + 64) * 2
    assert load_model("Qwen3-30B-A3B").kv_bytes_per_token("bf16") == 48 * 2 * 4 * 128 * 2


def test_an_inline_model_and_its_mistakes() -> None:
    attention = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
    shape = {"name": "mine", "hidden_size": 64, "num_layers": 2, "vocab_size": 100, "attention": attention}
    model = load_model({**shape, "num_experts": 4, "top_k": 2, "expert_intermediate": 32})
    assert model.expert_parameters == 3 * 64 * 32
    with pytest.raises(BadInput, match="top-5 of 4"):
        load_model({**shape, "num_experts": 4, "top_k": 5, "expert_intermediate": 32})
    with pytest.raises(BadInput, match="unknown key 'expert_width'.*expert_intermediate"):
        load_model({**shape, "num_experts": 4, "top_k": 2, "expert_width": 32})


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"model_type": "mixtral"}'])
def test_a_broken_config_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x_config.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="x_config.json"):
        load_model(path)


@pytest.mark.parametrize("name", sorted(known_models()))
def test_every_shipped_model_loads(name: str) -> None:
    model = load_model(name)
    assert 0 < model.active_parameters < model.total_parameters
