"""Families that have linear recurrences in place of attention in most of their layers."""

from __future__ import annotations

from dataclasses import replace

from moesim.errors import BadInput
from moesim.models.config import Config
from moesim.models.families import (
    TEXT_ONLY,
    Fields,
    after_dense_layers,
    grouped_attention,
    latent_attention,
    layers_of,
    qwen2_moe,
)
from moesim.models.mixer import Linear, NoMixer

UNCHECKED = "no published count of this family is known to check its parameters against"
RESIDUALS = "residuals that attend to earlier blocks of layers are not modelled"


def qwen3_next(config: Config) -> Fields:
    """Qwen3-Next and Qwen3.5: gated delta nets, and in every fourth layer attention whose output is gated."""
    fields = qwen2_moe(config)
    net = Linear(
        "gdn",
        key_heads=config.integer("linear_num_key_heads"),
        key_dim=config.integer("linear_key_head_dim"),
        value_heads=config.integer("linear_num_value_heads"),
        value_dim=config.integer("linear_value_head_dim"),
        conv=config.integer("linear_conv_kernel_dim"),
    )
    mtp = config.integer("mtp_num_hidden_layers", "num_nextn_predict_layers", default=0)
    attention = grouped_attention(config, gated=True)
    return {**fields, "attention": attention, "others": ((net, _linear_layers(config)),), "mtp_layers": mtp}


def _linear_layers(config: Config) -> tuple[int, ...]:
    """Those of `layer_types`, or all but every `full_attention_interval`-th."""
    if config.data.get("layer_types") is not None:
        return layers_of(config, "linear_attention")
    every = max(config.integer("full_attention_interval", default=4), 1)
    return tuple(layer for layer in range(config.integer("num_hidden_layers")) if (layer + 1) % every)


def qwen3_5_moe(config: Config) -> Fields:
    """The language part of Qwen3.5."""
    return {**qwen3_next(config), "approximations": (TEXT_ONLY,)}


def kimi_linear(config: Config) -> Fields:
    """Kimi Linear: Kimi delta attention, and latent attention in the layers of `full_attn_layers`, counted from 1."""
    found = config.section("linear_attn_config")
    heads, width, layers = found.integer("num_heads"), found.integer("head_dim"), config.integer("num_hidden_layers")
    conv, whole = found.integer("short_conv_kernel_size"), bool(found.data.get("use_full_rank_gate", False))
    delta = Linear("kda", heads, width, heads, width, conv, rank=width, full_gate=whole)
    full = {layer - 1 for layer in found.integers("full_attn_layers")}
    expert = config.integer("moe_intermediate_size")
    return {
        "attention": replace(latent_attention(config), gated=bool(config.data.get("mla_use_output_gate", False))),
        "latent": config.integer("routed_expert_hidden_size", default=0),
        "others": ((delta, tuple(layer for layer in range(layers) if layer not in full)),),
        "moe_layers": after_dense_layers(config),
        "num_experts": config.integer("num_experts"),
        "top_k": config.integer("num_experts_per_token"),
        "expert_intermediate": expert,
        "shared_intermediate": config.integer("num_shared_experts", default=0) * expert,
        "dense_intermediate": config.integer("intermediate_size"),
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
    }


def kimi_k3(config: Config) -> Fields:
    """Kimi-K3: a multimodal wrapper around Kimi Linear with latent experts and gates of full rank."""
    notes = (TEXT_ONLY, UNCHECKED, *([RESIDUALS] if config.integer("attn_res_block_size", default=0) else []))
    return {**kimi_linear(config), "approximations": notes}


def minimax(config: Config) -> Fields:
    """MiniMax-01 and M1: lightning attention, and softmax attention in layers whose `attn_type_list` says 1."""
    kinds, layers = config.integers("attn_type_list"), config.integer("num_hidden_layers")
    if len(kinds) != layers or set(kinds) - {0, 1}:
        raise BadInput(f"says not of each of {layers} layers 0 or 1", where=f"{config.source} attn_type_list")
    attention = grouped_attention(config)
    width = config.integer("head_dim", default=attention.head_dim)
    lightning = Linear("lightning", attention.num_heads, width, attention.num_heads, width, conv=0)
    return {
        "attention": attention,
        "others": ((lightning, tuple(layer for layer, kind in enumerate(kinds) if kind == 0)),),
        "moe_layers": tuple(range(layers)),
        "num_experts": config.integer("num_local_experts"),
        "expert_intermediate": config.integer("intermediate_size"),
    }


def jamba(config: Config) -> Fields:
    """Jamba: Mamba, attention in every `attn_layer_period`-th layer, experts in every `expert_layer_period`-th."""
    hidden, layers = config.integer("hidden_size"), range(config.integer("num_hidden_layers"))
    inner = config.integer("mamba_expand") * hidden
    rank = config.integer("mamba_dt_rank", default=-(-hidden // 16))
    mamba = Linear("mamba1", 1, config.integer("mamba_d_state"), inner, 1, config.integer("mamba_d_conv"), rank)
    attends = _every(config, layers, "attn_layer")
    return {
        "attention": grouped_attention(config),
        "others": ((mamba, tuple(layer for layer in layers if layer not in attends)),),
        "moe_layers": _every(config, layers, "expert_layer"),
        "num_experts": config.integer("num_experts"),
        "expert_intermediate": config.integer("intermediate_size"),
        "dense_intermediate": config.integer("intermediate_size"),
    }


def _every(config: Config, layers: range, what: str) -> tuple[int, ...]:
    period, offset = config.integer(f"{what}_period"), config.integer(f"{what}_offset")
    if not period:
        raise BadInput("is 0", where=f"{config.source} {what}_period")
    return tuple(layer for layer in layers if layer % period == offset)


BLOCKS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}  # of Nemotron-H, by their letters


def nemotron_h(config: Config) -> Fields:
    """Nemotron-H and Nemotron-3: each layer is one block: Mamba-2, attention, an FFN or experts, of two matrices."""
    blocks = _blocks(config)
    heads, width = config.integer("mamba_num_heads"), config.integer("mamba_head_dim")
    groups, state = config.integer("n_groups"), config.integer("ssm_state_size")
    mamba = Linear("mamba2", groups, state, heads, width, config.integer("conv_kernel"))
    of = {kind: tuple(layer for layer, one in enumerate(blocks) if one == kind) for kind in BLOCKS.values()}
    fields = {
        "attention": grouped_attention(config),
        "others": ((mamba, of["mamba"]), (NoMixer(), tuple(sorted((*of["moe"], *of["mlp"]))))),
        "moe_layers": of["moe"],
        "bare_layers": tuple(sorted((*of["mamba"], *of["attention"]))),
        "dense_intermediate": config.integer("intermediate_size"),
        "expert_matrices": 2,
    }
    if not of["moe"]:
        return {**fields, "num_experts": 0, "top_k": 0, "expert_intermediate": 0}
    return {
        **fields,
        "num_experts": config.integer("n_routed_experts"),
        "latent": config.integer("moe_latent_size", default=0),
        "expert_intermediate": config.integer("moe_intermediate_size"),
        "shared_intermediate": config.integer("n_shared_experts", default=0)
        * config.integer("moe_shared_expert_intermediate_size", default=0),
        "num_groups": config.integer("n_group", default=1),
        "topk_groups": config.integer("topk_group", default=1),
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
    }


def _blocks(config: Config) -> list[str]:
    """Of each layer: `layers_block_type`, or the letters of `hybrid_override_pattern`. Raises BadInput."""
    named, pattern = config.data.get("layers_block_type"), config.data.get("hybrid_override_pattern")
    if isinstance(named, list) and all(one in BLOCKS.values() for one in named):
        return list(named)
    if isinstance(pattern, str) and set(pattern) <= set(BLOCKS):
        return [BLOCKS[letter] for letter in pattern]
    raise BadInput(
        "does not say of each layer what it is", where=f"{config.source} hybrid_override_pattern",
        way_out=", ".join(f"{letter}: {name}" for letter, name in BLOCKS.items()),
    )  # fmt: skip
