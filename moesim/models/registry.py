"""model_type -> adapter, of the families whose parameter counts were checked. One line adds a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from moesim.models import families, hybrids
from moesim.models.config import Config
from moesim.models.families import Fields

REGISTRY: Final[dict[str, Callable[[Config], Fields]]] = {
    "deepseek_v2": families.deepseek_v3,
    "deepseek_v3": families.deepseek_v3,
    "deepseek_v32": families.deepseek_sparse,
    "dots1": families.grouped_deepseek,
    "ernie4_5_moe": families.ernie4_5_moe,
    "glm4_moe": families.grouped_deepseek,
    "glm_moe_dsa": families.deepseek_sparse,
    "gpt_oss": families.gpt_oss,
    "granitemoe": families.every_layer,
    "hunyuan_v1_moe": families.hunyuan_v1_moe,
    "jamba": hybrids.jamba,
    "kimi_k2": families.deepseek_v3,
    "kimi_k25": families.kimi_k25,
    "kimi_linear": hybrids.kimi_linear,
    "llama": families.dense,
    "llama4": families.llama4,
    "llama4_text": families.llama4_text,
    "mimo_v2_flash": families.mimo_v2_flash,
    "minimax": hybrids.minimax,
    "minimax_m2": families.minimax_m2,
    "minimax_text_01": hybrids.minimax,
    "mistral": families.dense,
    "mixtral": families.every_layer,
    "nemotron_h": hybrids.nemotron_h,
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
}
