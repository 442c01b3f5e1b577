"""Families with an encoder and a decoder, whose layers attend to what the encoder made of the prompt as well."""

from __future__ import annotations

from dataclasses import replace

from moesim.errors import BadInput
from moesim.models.config import Config
from moesim.models.families import Fields
from moesim.models.mixer import Attention


def switch_transformers(config: Config) -> Fields:
    """Switch Transformers (T5 with experts): of each half `num_sparse_*_layers` layers have experts, the second of
    every stretch; an FFN has two matrices and a token goes to one expert.
    """
    encoder, width = config.positive("num_layers"), config.positive("d_ff")
    decoder = config.integer("num_decoder_layers", default=encoder) or config.positive("num_decoder_layers")
    sparse = [
        _second_of(layers, config.integer(f"num_sparse_{half}_layers"))
        for half, layers in (("encoder", encoder), ("decoder", decoder))
    ]
    heads, each = config.positive("num_heads"), config.positive("d_kv")
    return {**_halves(heads, each, encoder, decoder, *sparse), **_ffn(config, width), "top_k": 1}


def nllb_moe(config: Config) -> Fields:
    """NLLB-MoE: every `*_sparse_step`-th layer of each half has experts; a token goes to two. Raises BadInput."""
    heads, hidden = config.integer("encoder_attention_heads"), config.integer("d_model")
    if heads != config.integer("decoder_attention_heads") or not heads:
        raise BadInput("heads of encoder and decoder differ, or are none", where=config.source)
    width = config.integer("encoder_ffn_dim")
    if width != config.integer("decoder_ffn_dim"):
        raise BadInput("FFNs of encoder and decoder differ", where=config.source)
    encoder, decoder = config.positive("encoder_layers"), config.positive("decoder_layers")
    steps = [config.integer(f"{half}_sparse_step", default=4) for half in ("encoder", "decoder")]
    sparse = [
        tuple(layer for layer in range(layers) if step and (layer + 1) % step == 0)
        for layers, step in zip((encoder, decoder), steps, strict=True)
    ]
    return {**_halves(heads, hidden // heads, encoder, decoder, *sparse), **_ffn(config, width), "top_k": 2}


def _second_of(layers: int, sparse: int) -> tuple[int, ...]:
    """Layers with experts where so many of them have some, as transformers spreads them."""
    step = layers // sparse if sparse else 0
    return tuple(layer for layer in range(layers) if step == 1 or (step > 1 and layer % step == 1))


def _halves(
    heads: int, width: int, encoder: int, decoder: int, of_encoder: tuple[int, ...], of_decoder: tuple[int, ...]
) -> Fields:
    """The decoder's layers are numbered on from the encoder's."""
    own = Attention("mha", heads, heads, width, width)
    return {
        "attention": own,
        "others": ((replace(own, cross=True), tuple(range(encoder, encoder + decoder))),),
        "encoder_layers": encoder,
        "num_layers": encoder + decoder,
        "moe_layers": (*of_encoder, *(encoder + layer for layer in of_decoder)),
    }


def _ffn(config: Config, width: int) -> Fields:
    return {
        "hidden_size": config.integer("d_model"),
        "num_experts": config.integer("num_experts"),
        "expert_intermediate": width,
        "dense_intermediate": width,
        "expert_matrices": 2,
        "tie_embeddings": bool(config.data.get("tie_word_embeddings", True)),  # transformers' default, and T5's
    }
