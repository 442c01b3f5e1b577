"""Families whose layers look back over windows, with heads of their own there."""

from __future__ import annotations

from dataclasses import replace

from moesim.errors import BadInput
from moesim.models.config import Config
from moesim.models.families import (
    TEXT_ONLY,
    Fields,
    after_dense_layers,
    deepseek_plan,
    grouped_attention,
    layers_of,
)
from moesim.models.families import windows as windows_of
from moesim.models.mixer import Attention


def mimo_v2_flash(config: Config) -> Fields:
    """MiMo-V2: DeepSeek's layer plan; layers that `hybrid_layer_pattern` marks look at a window, with own KV heads."""
    pattern, layers = config.integers("hybrid_layer_pattern"), config.integer("num_hidden_layers")
    if len(pattern) != layers or set(pattern) - {0, 1}:
        raise BadInput(f"says not of each of {layers} layers 0 or 1", where=f"{config.source} hybrid_layer_pattern")
    heads, width = config.integer("swa_num_attention_heads"), config.integer("swa_head_dim")
    window = Attention(
        "gqa", heads, config.integer("swa_num_key_value_heads"), width,
        config.integer("swa_v_head_dim", default=width), window=config.integer("sliding_window"),
    )  # fmt: skip
    chosen = tuple(layer for layer, one in enumerate(pattern) if one)
    return {**deepseek_plan(config), "attention": grouped_attention(config), "others": ((window, chosen),)}


def gemma4(config: Config) -> Fields:
    """The Mixture-of-Experts size of Gemma 4: an FFN beside the experts of every layer, as a shared expert; layers that
    attend to everything have wider heads, fewer of them cached.
    """
    if not config.data.get("enable_moe_block"):
        raise BadInput("sizes without experts are not modelled", where=f"{config.source} enable_moe_block")
    for name in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        if config.integer(name, default=0):
            raise BadInput("is not modelled where it is not 0", where=f"{config.source} {name}")
    window = replace(grouped_attention(config), window=config.integer("sliding_window"))
    width = config.integer("global_head_dim", default=window.head_dim)
    cached = config.integer("num_global_key_value_heads", default=window.num_kv_heads)
    return {
        "attention": Attention("gqa", window.num_heads, cached, width, width),
        "others": ((window, layers_of(config, "sliding_attention")),),
        "moe_layers": tuple(range(config.integer("num_hidden_layers"))),
        "num_experts": config.integer("num_experts"),
        "top_k": config.integer("top_k_experts"),
        "expert_intermediate": config.integer("moe_intermediate_size"),
        "shared_intermediate": config.integer("intermediate_size"),
        "approximations": (TEXT_ONLY,),
    }


def step3p7(config: Config) -> Fields:
    """Step-3.7: windows in three of four layers, leading dense layers, one shared expert."""
    return {
        **windows_of(config),
        "attention": grouped_attention(config),
        "moe_layers": after_dense_layers(config),
        "num_experts": config.integer("num_experts"),
        "expert_intermediate": config.integer("moe_intermediate_size"),
        "shared_intermediate": config.integer("share_expert_dim"),
        "dense_intermediate": config.integer("intermediate_size"),
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
    }


def minimax_m3(config: Config) -> Fields:
    """MiniMax-M3: leading dense layers of their own width; blocks of tokens are picked in the others."""
    shared = config.integer("n_shared_experts", default=0)
    return {
        **_picked_blocks(config),
        "moe_layers": after_dense_layers(config),
        "num_experts": config.integer("num_local_experts"),
        "expert_intermediate": config.integer("moe_intermediate_size", "intermediate_size"),
        "shared_intermediate": shared * config.integer("shared_intermediate_size", default=0),
        "dense_intermediate": config.integer("dense_intermediate_size"),
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
    }


def _picked_blocks(config: Config) -> Fields:
    """Attention to the blocks that an indexer picks, in the layers of `sparse_attention_freq`."""
    whole, layers = grouped_attention(config), config.integer("num_hidden_layers")
    found = config.data.get("sparse_attention_config")
    if found is None:
        return {"attention": whole}
    said = config.section("sparse_attention_config")
    if said.data.get("use_sparse_attention") is False:
        return {"attention": whole}
    flags = said.integers("sparse_attention_freq")
    if len(flags) != layers or set(flags) - {0, 1} or 1 not in flags:
        raise BadInput(f"says not of each of {layers} layers 0 or 1", where=f"{said.source} sparse_attention_freq")
    picks = replace(
        whole, selected=said.positive("sparse_topk_blocks") * said.positive("sparse_block_size"),
        index_heads=said.positive("sparse_num_index_heads"), index_dim=said.positive("sparse_index_dim"),
    )  # fmt: skip
    dense = tuple(layer for layer, flag in enumerate(flags) if not flag)
    return {"attention": picks, "others": ((whole, dense),) if dense else ()}
