"""Models as training tables name them: shipped ones by their names without punctuation, and DeepSeek-V2."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from moesim import shipped
from moesim.errors import unknown_name
from moesim.models import Attention, MoEModel, load_model

FOLDER, ENDING = "workloads/models", "_config.json"
# DeepSeek-V2 (2024), table of hyper-parameters, vocabulary padded to a multiple of 128; all layers have experts but one
DEEPSEEK_V2: Final = MoEModel(
    "deepseek-ai/DeepSeek-V2", "deepseek_v2", 5120, 60, 102400, False,
    Attention("mla", 128, 128, 192, 128, 1536, 512, 128, 64), tuple(range(1, 60)), 160, 6, 1536,
    shared_intermediate=3072, dense_intermediate=12288, num_groups=8, topk_groups=3,
)  # fmt: skip


def find_model(words: str) -> MoEModel:
    """The model whose name holds those words, punctuation aside; the shortest such name. Raises BadInput."""
    asked = _plain(words)
    if asked in _plain(DEEPSEEK_V2.name):
        return DEEPSEEK_V2
    names = [name.replace("--", "/") for name in shipped.names(FOLDER, ENDING)]
    holds = [name for name in names if asked and asked in _plain(name)]
    if not holds:
        raise unknown_name("model", words, [DEEPSEEK_V2.name, *names])
    return replace(load_model(min(holds, key=len), "bf16"), mtp_layers=0)


def first_layers(model: MoEModel, layers: int, *, one_dense: bool) -> MoEModel:
    """Its first layers; one_dense: of which the first alone has no experts, where the model has any."""
    moe = tuple(layer for layer in model.moe_layers if layer < layers)
    if model.routed and one_dense and model.dense_layers:
        moe = tuple(range(1, layers))
    others = tuple((mixer, tuple(one for one in some if one < layers)) for mixer, some in model.others)
    bare = tuple(layer for layer in model.bare_layers if layer < layers)
    return replace(model, num_layers=layers, moe_layers=moe, others=others, bare_layers=bare)


def _plain(words: str) -> str:
    return re.sub(r"[^a-z0-9]", "", words.lower())
