"""A model of one's own, described in YAML or as a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import load_model

SMALL: dict[str, Any] = {
    "name": "small",
    "hidden_size": 64,
    "num_layers": 3,
    "dense_layers": 1,
    "vocab_size": 100,
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16},
    "num_experts": 8,
    "top_k": 2,
    "expert_intermediate": 32,
    "dense_intermediate": 128,
}


def test_its_parameters_are_the_sum_of_its_parts() -> None:
    model = load_model(SMALL)
    attention = 64 * (4 * 16 + 2 * 2 * 16) + 4 * 16 * 64
    experts, dense, gate = 8 * 3 * 64 * 32, 3 * 64 * 128, 64 * 8
    assert model.total_parameters == 3 * attention + 2 * (experts + gate) + dense + 2 * 100 * 64
    assert model.total_parameters - model.active_parameters == 2 * 6 * 3 * 64 * 32
    assert (model.moe_layers, model.attention.kind) == ((1, 2), "gqa")


def test_experts_of_two_matrices_and_tied_embeddings() -> None:
    plain = load_model({**SMALL, "expert_matrices": 2, "tie_embeddings": True, "dtype": "fp4"})
    assert plain.expert_parameters == 2 * 64 * 32
    assert plain.embedding_parameters == 6400
    assert plain.expert_dtype == "fp4"


def test_every_so_many_layers_has_experts() -> None:
    model = load_model({**SMALL, "num_layers": 9, "expert_interval": 4})
    assert model.moe_layers == (4, 8)
    with pytest.raises(BadInput, match="expert_interval 4 after 1 dense layers of 3 leaves none with experts"):
        load_model({**SMALL, "expert_interval": 4})


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    lines = [f"{key}: {value}" for key, value in SMALL.items() if key != "attention"]
    path.write_text("\n".join([*lines, "attention: {num_heads: 4, num_kv_heads: 2, head_dim: 16}"]))
    assert load_model(path) == load_model(SMALL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_expert": 8}, "did you mean 'num_experts'"),
        ({"top_k": 9}, "top-9 of 8"),
        ({"num_layers": 0}, "greater than or equal to 1"),
        ({"num_layers": 10**9}, "less than or equal to 10000"),
        ({"dense_layers": 3}, "0 expert layers"),
        ({"dtype": "int3"}, "dtype"),
        ({"hidden_size": 6.4}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"attention": {"num_heads": 4, "num_kv_heads": 3, "head_dim": 16}}, "unevenly"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_model({**SMALL, **change})


def test_a_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("name: small\nhidden_size: many\n")
    with pytest.raises(BadInput, match=r"small\.yaml:2 hidden_size"):
        load_model(path)


def test_latent_attention_inline_counts_as_a_config_of_it() -> None:
    """DeepSeek-V3 described in YAML is DeepSeek-V3."""
    latent = {"num_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
              "qk_rope_head_dim": 64, "v_head_dim": 128}  # fmt: skip
    own = load_model({
        "name": "own", "hidden_size": 7168, "num_layers": 61, "dense_layers": 3, "vocab_size": 129280,
        "attention": latent, "num_experts": 256, "top_k": 8, "expert_intermediate": 2048, "shared_intermediate": 2048,
        "dense_intermediate": 18432, "num_groups": 8, "topk_groups": 4,
    })  # fmt: skip
    theirs = load_model("DeepSeek-V3")
    assert (own.total_parameters, own.active_parameters) == (theirs.total_parameters, theirs.active_parameters)
    assert (own.attention, own.moe_layers) == (theirs.attention, theirs.moe_layers)


def test_a_pattern_of_layers_and_a_dense_one() -> None:
    net = {"kind": "gdn", "key_heads": 2, "key_dim": 8, "value_heads": 4, "value_dim": 8}
    hybrid = load_model({**SMALL, "num_layers": 7, "linear": net, "pattern": "LLA"})
    assert hybrid.mixer_of == (1, 1, 0, 1, 1, 0, 1)
    windowed = load_model({**SMALL, "attention": {**SMALL["attention"], "window": 32}, "pattern": "WA"})
    assert windowed.mixer_of == (1, 0, 1) and windowed.mixers[1].cached_tokens(100) == 32
    experts = ("num_experts", "top_k", "expert_intermediate")
    dense = load_model({key: value for key, value in SMALL.items() if key not in experts})
    assert not dense.routed and dense.total_parameters == dense.active_parameters


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pattern": "LA"}, "linear belong together"),
        ({"pattern": "XA"}, "pattern"),
        ({"attention": {"num_heads": 4}}, "num_kv_heads is missing"),
        ({"attention": {"num_heads": 4, "kv_lora_rank": 8}}, "is missing of latent"),
        ({"attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "window": 4}}, "attention.window belong"),
    ],
)
def test_descriptions_that_contradict_themselves(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_model({**SMALL, **change})
