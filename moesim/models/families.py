"""Families of models whose layers are attention with an FFN or experts: Config -> fields of a MoEModel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moesim.errors import BadInput
from moesim.models.config import Config
from moesim.models.mixer import Attention

Fields = dict[str, Any]

LAYER_TYPES = ("full_attention", "sliding_attention", "linear_attention")
CHUNKED = "chunked attention layers are approximated by full attention"
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
TEXT_ONLY = "only the language part of a multimodal model is simulated"


def grouped_attention(config: Config, *, gated: bool = False) -> Attention:
    """MHA or GQA; gated: see Attention."""
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", default=heads)
    width = config.integer("head_dim", default=config.integer("hidden_size") // max(heads, 1))
    values = config.integer("v_head_dim", default=width)
    return Attention("mha" if kv_heads == heads else "gqa", heads, kv_heads, width, values, gated=gated)


def latent_attention(config: Config) -> Attention:
    """MLA (DeepSeek-V2)."""
    heads = config.integer("num_attention_heads")
    nope, rope = config.integer("qk_nope_head_dim"), config.integer("qk_rope_head_dim")
    return Attention(
        "mla",
        heads,
        heads,
        nope + rope,
        config.integer("v_head_dim"),
        q_lora_rank=config.integer("q_lora_rank", default=0),
        kv_lora_rank=config.integer("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
    )


def every_layer(config: Config) -> Fields:
    """Experts in every layer, whose width is `intermediate_size` (Mixtral, gpt-oss, MiniMax-M2, Phi-3.5, Granite)."""
    return {
        "attention": grouped_attention(config),
        "moe_layers": tuple(range(config.integer("num_hidden_layers"))),
        "num_experts": config.integer("num_local_experts"),
        "expert_intermediate": config.integer("intermediate_size"),
    }


def gpt_oss(config: Config) -> Fields:
    """gpt-oss: every second layer looks at a window of 128 tokens."""
    return {**every_layer(config), **windows(config, default=0)}


def windows(config: Config, default: int | None = None) -> Fields:
    """Layers of `layer_types` that look back at `sliding_window` tokens; without the list every second, from
    `default` on, or none.
    """
    width, layers = config.integer("sliding_window", default=0), config.integer("num_hidden_layers")
    kinds = config.data.get("layer_types")
    if kinds is None:
        chosen = tuple(range(default, layers, 2)) if default is not None else ()
    else:
        chosen = layers_of(config, "sliding_attention")
    return {"others": ((replace(grouped_attention(config), window=width), chosen),)} if width and chosen else {}


def layers_of(config: Config, kind: str) -> tuple[int, ...]:
    """Layers whose entry in `layer_types` is `kind`. Raises BadInput where it is no list of names, one a layer."""
    kinds, layers = config.data.get("layer_types"), config.integer("num_hidden_layers")
    if not isinstance(kinds, list) or len(kinds) != layers or any(one not in LAYER_TYPES for one in kinds):
        raise BadInput(
            f"{str(kinds)[:40]} does not say of each of {layers} layers what it is",
            where=f"{config.source} layer_types",
            way_out=", ".join(LAYER_TYPES),
        )
    return tuple(layer for layer, one in enumerate(kinds) if one == kind)


def minimax_m2(config: Config) -> Fields:
    """MiniMax-M2."""
    return {**every_layer(config), "mtp_layers": config.integer("num_mtp_modules", default=0)}


def qwen3_moe(config: Config) -> Fields:
    """Qwen3: every `decoder_sparse_step`-th layer has experts, except those in `mlp_only_layers`."""
    step, dense = config.integer("decoder_sparse_step", default=1), tuple[int, ...]()
    if not step:
        raise BadInput("is 0", where=f"{config.source} decoder_sparse_step", way_out="1: experts in every layer")
    if config.data.get("mlp_only_layers") is not None:
        dense = config.integers("mlp_only_layers")
    layers = range(config.integer("num_hidden_layers"))
    return {
        "attention": grouped_attention(config),
        "moe_layers": tuple(layer for layer in layers if layer not in dense and (layer + 1) % step == 0),
        "num_experts": config.integer("num_experts"),
        "expert_intermediate": config.integer("moe_intermediate_size"),
        "dense_intermediate": config.integer("intermediate_size", default=0),
    }


def qwen3_vl_moe(config: Config) -> Fields:
    """The language part of Qwen3-VL."""
    return {**qwen3_moe(config), "approximations": (TEXT_ONLY,)}


def _named_layers(config: Config) -> tuple[int, ...]:
    """`moe_layers`, empty where it is missing or null. Raises BadInput where it is no list of layers."""
    named, layers = config.data.get("moe_layers"), config.integer("num_hidden_layers")
    if named is None:
        return ()
    numbers = isinstance(named, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in named)
    if not numbers or not named or sorted({*named}) != sorted(named) or not 0 <= min(named) <= max(named) < layers:
        raise BadInput(f"{str(named)[:40]} is no list of layers below {layers}", where=f"{config.source} moe_layers")
    return tuple(sorted(named))


def llama4(config: Config) -> Fields:
    """Llama 4: experts in the layers of `moe_layers`, or else in every `interleave_moe_layer_step`-th; one implicit
    shared expert of the same width.
    """
    step, layers = config.integer("interleave_moe_layer_step", default=1), config.integer("num_hidden_layers")
    width = config.integer("intermediate_size")
    return {
        "attention": grouped_attention(config),
        "moe_layers": _named_layers(config) or tuple(range(step - 1, layers, step)),
        "num_experts": config.integer("num_local_experts"),
        "expert_intermediate": width,
        "shared_intermediate": width,
        "dense_intermediate": config.integer("intermediate_size_mlp"),
        "approximations": (CHUNKED, TEXT_ONLY),
    }


def deepseek_v3(config: Config) -> Fields:
    """DeepSeek-V2, V3 and Kimi-K2: MLA over DeepSeek's layer plan."""
    return {**deepseek_plan(config), "attention": latent_attention(config)}


def deepseek_plan(config: Config) -> Fields:
    """Leading dense layers, shared experts, group-limited routing, MTP layers."""
    width = config.integer("moe_intermediate_size")
    return {
        "moe_layers": after_dense_layers(config),
        "num_experts": config.integer("n_routed_experts"),
        "expert_intermediate": width,
        "shared_intermediate": config.integer("n_shared_experts", default=0) * width,
        "dense_intermediate": config.integer("intermediate_size"),
        "num_groups": config.integer("n_group", default=1),
        "topk_groups": config.integer("topk_group", default=1),
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
    }


def after_dense_layers(config: Config) -> tuple[int, ...]:
    """Leading dense layers, then every `moe_layer_freq`-th layer has experts; a list says it layer by layer."""
    first, layers = config.integer("first_k_dense_replace", default=0), config.integer("num_hidden_layers")
    frequency = config.data.get("moe_layer_freq", 1)
    if isinstance(frequency, int) and not isinstance(frequency, bool) and frequency > 0:
        return tuple(layer for layer in range(first, layers) if layer % frequency == 0)
    if isinstance(frequency, list) and len(frequency) == layers and all(flag in (0, 1) for flag in frequency):
        return tuple(layer for layer in range(first, layers) if frequency[layer])
    raise BadInput(
        f"{str(frequency)[:40]} is neither an interval nor a list of 0 and 1 for {layers} layers",
        where=f"{config.source} moe_layer_freq",
    )


def deepseek_sparse(config: Config) -> Fields:
    """DeepSeek-V3.2 and GLM-5: DeepSeek-V3 with an indexer that picks the tokens to attend to; layers whose
    `indexer_types` say "shared" take the picks of the last one that says "full" (GLM-5.2).
    """
    heads, width = config.integer("index_n_heads"), config.integer("index_head_dim")
    picks = replace(latent_attention(config), selected=config.integer("index_topk"))
    own, kinds = replace(picks, index_heads=heads, index_dim=width), config.data.get("indexer_types")
    layers: tuple[int, ...] = ()
    if kinds is not None:
        number = config.integer("num_hidden_layers")
        if not isinstance(kinds, list) or len(kinds) != number or set(map(str, kinds)) - {"full", "shared"}:
            raise BadInput(f"{str(kinds)[:40]} does not say full or shared of each of {number} layers",
                           where=f"{config.source} indexer_types")  # fmt: skip
        layers = tuple(layer for layer, kind in enumerate(kinds) if kind == "shared")
    return {**deepseek_v3(config), "attention": own, "others": ((picks, layers),) if layers else ()}


def kimi_k25(config: Config) -> Fields:
    """Kimi-K2.5: a multimodal wrapper around Kimi-K2."""
    return {**deepseek_v3(config), "approximations": (TEXT_ONLY,)}


def qwen2_moe(config: Config) -> Fields:
    """Qwen1.5-MoE and Qwen2-MoE: Qwen3's layer plan, and a shared expert of its own width."""
    return {**qwen3_moe(config), "shared_intermediate": config.integer("shared_expert_intermediate_size")}


def olmoe(config: Config) -> Fields:
    """OLMoE: Mixtral's layer plan under another name for the number of experts."""
    return {
        "attention": grouped_attention(config),
        "moe_layers": tuple(range(config.integer("num_hidden_layers"))),
        "num_experts": config.integer("num_experts"),
        "expert_intermediate": config.integer("intermediate_size"),
    }


def grouped_deepseek(config: Config) -> Fields:
    """GLM-4.5 and dots.llm1: grouped attention in DeepSeek's layer plan."""
    return {**deepseek_plan(config), "attention": grouped_attention(config)}


def ernie4_5_moe(config: Config) -> Fields:
    """ERNIE 4.5: every `moe_layer_interval`-th layer between a first and a last one (-1: the model's last)."""
    layers, width = config.integer("num_hidden_layers"), config.integer("moe_intermediate_size")
    first, step = config.integer("moe_layer_start_index", default=1), config.integer("moe_layer_interval", default=1)
    last = layers - 1
    if config.data.get("moe_layer_end_index", -1) != -1:
        last = min(config.integer("moe_layer_end_index"), last)
    return {
        "attention": grouped_attention(config),
        "moe_layers": tuple(layer for layer in range(first, last + 1) if (layer + 1) % max(step, 1) == 0),
        "num_experts": config.integer("moe_num_experts"),
        "top_k": config.integer("moe_k"),
        "expert_intermediate": width,
        "shared_intermediate": config.integer("moe_num_shared_experts", default=0) * width,
        "dense_intermediate": config.integer("intermediate_size"),
    }


def hunyuan_v1_moe(config: Config) -> Fields:
    """Hunyuan-A13B: experts in every layer; counts may be lists with an entry a layer, all alike."""
    width = _alike(config, "moe_intermediate_size")
    return {
        "attention": grouped_attention(config),
        "moe_layers": tuple(range(config.integer("num_hidden_layers"))),
        "num_experts": _alike(config, "num_experts"),
        "top_k": _alike(config, "moe_topk"),
        "expert_intermediate": width,
        "shared_intermediate": _alike(config, "num_shared_expert") * width,
    }


def _alike(config: Config, name: str) -> int:
    """A count, or the one that all entries of a list share. Raises BadInput where layers differ."""
    value = config.data.get(name)
    if isinstance(value, list) and value:
        if any(one != value[0] for one in value):
            raise BadInput("layers that differ are not modelled", where=f"{config.source} {name}")
        return Config({name: value[0]}, config.source).integer(name)
    return config.integer(name)


def llama4_text(config: Config) -> Fields:
    """The language part of Llama 4 in a file of its own."""
    return {**llama4(config), "approximations": (CHUNKED,)}


def _dense_windows(config: Config) -> Fields:
    """Mistral: all layers; Qwen: those of `layer_types`, where `use_sliding_window` is set."""
    width = config.integer("sliding_window", default=0)
    if not width or not config.data.get("use_sliding_window", True):
        return {}
    if config.data.get("layer_types") is not None:
        return windows(config)
    return {"attention": replace(grouped_attention(config), window=width)}


def dense(config: Config) -> Fields:
    """Llama, Qwen2, Qwen3, Mistral: one FFN in every layer and no experts. Raises BadInput where there are some."""
    if found := next((name for name in EXPERT_COUNTS if config.integer(name, default=0) > 0), ""):
        raise BadInput(
            f"model_type {config.data.get('model_type')!r} has no experts, but {found} is {config.data[found]}",
            where=config.source,
            way_out="the model_type of a Mixture-of-Experts family",
        )
    return {
        "attention": grouped_attention(config),
        "moe_layers": (),
        "num_experts": 0,
        "top_k": 0,
        "expert_intermediate": 0,
        "dense_intermediate": config.integer("intermediate_size"),
        **_dense_windows(config),
    }
