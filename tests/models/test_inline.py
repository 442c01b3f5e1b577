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
