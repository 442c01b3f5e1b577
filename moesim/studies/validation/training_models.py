"""Models as training tables name them: shipped ones by their names without punctuation, and DeepSeek-V2."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from moesim import shipped
from moesim.errors import BadInput, unknown_name
from moesim.models import Attention, MoEModel, load_model
from moesim.training import Stage

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
    names = [DEEPSEEK_V2.name, *(name.replace("--", "/") for name in shipped.names(FOLDER, ENDING))]
    holds = [name for name in names if asked and asked in _plain(name)]
    if not holds:
        raise unknown_name("model", words, names)
    name = min(holds, key=len)
    return DEEPSEEK_V2 if name == DEEPSEEK_V2.name else replace(load_model(name, "bf16"), mtp_layers=0)


def first_layers(model: MoEModel, layers: int, *, one_dense: bool) -> MoEModel:
    """Its first layers; one_dense: of which the first alone has no experts, where it has any. Raises BadInput."""
    if layers > model.num_layers:
        raise BadInput(f"{layers} layers of {model.name}, which has {model.num_layers}")
    cut = Stage(0, 1, 0, layers).model(model)
    return (
        replace(cut, moe_layers=tuple(range(1, layers))) if one_dense and model.dense_layers and model.routed else cut
    )


def _plain(words: str) -> str:
    return re.sub(r"[^a-z0-9]", "", words.lower())
