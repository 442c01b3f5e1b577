"""Models with an encoder: their published totals, and what is said where somebody wants to play one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.models import load_model, load_played

SWITCH = {
    "model_type": "switch_transformers", "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12,
    "num_decoder_layers": 12, "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6, "num_experts": 8,
    "vocab_size": 32128,
}  # fmt: skip
C = {"d_model": 2080, "d_ff": 6144, "num_heads": 32, "num_layers": 15, "num_decoder_layers": 15, "num_experts": 2048,
     "num_sparse_encoder_layers": 15, "num_sparse_decoder_layers": 15}  # fmt: skip
NLLB = {
    "model_type": "nllb-moe", "d_model": 2048, "encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192,
    "decoder_ffn_dim": 8192, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "num_experts": 128,
    "encoder_sparse_step": 4, "decoder_sparse_step": 4, "num_hidden_layers": 24, "vocab_size": 256206,
}  # fmt: skip


def _file(folder: Path, **keys: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(keys))
    return path


@pytest.mark.parametrize(
    ("keys", "billions", "within"),
    [
        (SWITCH, 0.6193, 0.0005),  # google/switch-base-8 holds 619 M
        ({**SWITCH, "num_experts": 128}, 7.4, 0.05),  # Switch-Base, Switch-C: Fedus et al., table 9
        ({**SWITCH, **C}, 1571, 1),
        (NLLB, 54.5, 0.05),  # NLLB-MoE: NLLB Team, section 8
    ],
)
def test_totals_are_the_published_ones(tmp_path: Path, keys: dict[str, Any], billions: float, within: float) -> None:
    model = load_model(_file(tmp_path, **keys))
    assert model.total_parameters / 1e9 == pytest.approx(billions, abs=within)
    assert (model.expert_matrices, model.tie_embeddings) == (2, True)


def test_experts_stand_where_transformers_puts_them(tmp_path: Path) -> None:
    switch, nllb = load_model(_file(tmp_path, **SWITCH)), load_model(_file(tmp_path, **NLLB))
    assert switch.moe_layers == tuple(range(1, 24, 2))
    assert (nllb.moe_layers, nllb.encoder_layers, nllb.top_k) == (tuple(range(3, 48, 4)), 24, 2)


def test_a_decoders_layer_attends_twice_and_an_encoder_caches_nothing(tmp_path: Path) -> None:
    model = load_model(_file(tmp_path, **SWITCH))
    own, cross = model.mixers
    assert model.kv_bytes_per_token("bf16") == 12 * 2 * 768 * 2
    each = [sum(gemm.parameters for gemm in mixer.gemms(768)) for mixer in (own, cross)]
    assert each == [4 * 768 * 768, 8 * 768 * 768]


def test_steps_are_refused_and_the_way_out_is_its_decoder(tmp_path: Path) -> None:
    import yaml

    with pytest.raises(BadInput, match=r"54\.48 B parameters, 24 layers of an encoder and 24 of a decoder") as refusal:
        load_played(_file(tmp_path, **NLLB))
    inline = load_played(yaml.safe_load(str(refusal.value.way_out).partition("model: ")[2]))
    assert (inline.num_layers, inline.moe_layers) == (24, (3, 7, 11, 15, 19, 23))
    assert inline.expert_parameters == 2 * 2048 * 8192


def test_halves_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="FFNs of encoder and decoder differ"):
        load_model(_file(tmp_path, **{**NLLB, "decoder_ffn_dim": 4096}))
    with pytest.raises(BadInput, match="heads of encoder and decoder differ"):
        load_model(_file(tmp_path, **{**NLLB, "decoder_attention_heads": 8}))
