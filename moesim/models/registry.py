"""model_type -> adapter, of the families whose parameter counts were checked. One line adds a family."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Final

from moesim.models import deepseek_v4, encoders, families, hybrids, longcat, windowed
from moesim.models.config import Config
from moesim.models.families import Fields

REGISTRY: Final[dict[str, Callable[[Config], Fields]]] = {
    "deepseek_v2": families.deepseek_v3,
    "deepseek_v3": families.deepseek_v3,
    "deepseek_ref": deepseek_v4.deepseek_v4,
    "deepseek_v32": families.deepseek_sparse,
    "deepseek_v4": deepseek_v4.deepseek_v4,
    "dots1": families.grouped_deepseek,
    "ernie4_5_moe": families.ernie4_5_moe,
    "gemma4": windowed.gemma4,
    "glm4_moe": families.grouped_deepseek,
    "glm_moe_dsa": families.deepseek_sparse,
    "gpt_oss": families.gpt_oss,
    "granitemoe": families.every_layer,
    "hunyuan_v1_moe": families.hunyuan_v1_moe,
    "jamba": hybrids.jamba,
    "kimi_k3": hybrids.kimi_k3,
    "kimi_k2": families.deepseek_v3,
    "kimi_k25": families.kimi_k25,
    "kimi_linear": hybrids.kimi_linear,
    "llama": families.dense,
    "llama4": families.llama4,
    "llama4_text": families.llama4_text,
    "longcat_flash": longcat.longcat_flash,
    "mimo_v2_flash": windowed.mimo_v2_flash,
    "minimax": hybrids.minimax,
    "minimax_m2": families.minimax_m2,
    "minimax_m3": windowed.minimax_m3,
    "minimax_text_01": hybrids.minimax,
    "mistral": families.dense,
    "mixtral": families.every_layer,
    "nemotron_h": hybrids.nemotron_h,
    "nllb-moe": encoders.nllb_moe,
    "olmoe": families.olmoe,
    "phimoe": families.every_layer,
    "qwen2": families.dense,
    "qwen2_moe": families.qwen2_moe,
    "qwen3": families.dense,
    "qwen3_5_moe": hybrids.qwen3_5_moe,
    "qwen3_5_moe_text": hybrids.qwen3_next,
    "qwen3_moe": families.qwen3_moe,
    "qwen3_next": hybrids.qwen3_next,
    "qwen3_vl_moe": families.qwen3_vl_moe,
    "step3p7": windowed.step3p7,
    "switch_transformers": encoders.switch_transformers,
}

SIGNS: Final = (  # keys that tell a layer plan, and the family that has it; the first that are all there decide
    (("compress_ratios",), "deepseek_v4"),
    (("kv_lora_rank", "index_topk"), "deepseek_v32"),
    (("kv_lora_rank", "n_routed_experts"), "deepseek_v3"),
    (("linear_attn_config",), "kimi_linear"),
    (("linear_num_key_heads",), "qwen3_next"),
    (("mamba_d_state", "num_experts"), "jamba"),
    (("mamba_num_heads",), "nemotron_h"),
    (("n_routed_experts",), "glm4_moe"),
    (("shared_expert_intermediate_size", "num_experts"), "qwen2_moe"),
    (("moe_intermediate_size", "num_experts"), "qwen3_moe"),
    (("num_local_experts",), "mixtral"),
    (("num_experts",), "olmoe"),
    (("intermediate_size", "num_attention_heads"), "llama"),
)


def nearest(config: Config, known: Iterable[str]) -> str:
    """Advice for a model_type that is not known: the family whose keys the file has, or whose name is alike; "" where
    there is none.
    """
    named = str(config.data.get("model_type"))
    given = {key for key, value in config.data.items() if value}
    found = next((family for keys, family in SIGNS if given.issuperset(keys)), "")
    found = found or next(iter(difflib.get_close_matches(named, list(known), 1)), "")
    return f"its keys are like those of {found}: set model_type to that if its layers are too, " if found else ""
