"""Checkpoints as tables of measurements name them: the shipped model of the same architecture.

A name says more than the architecture: who published it, how it was tuned, when, and in which dtype its weights are
stored. None of that changes a shape; dtypes stand in columns of their own.
"""

from __future__ import annotations

import re
from typing import Final

from moesim.models import known_models

STORED: Final = {"fp8", "fp4", "nvfp4", "mxfp4", "bf16", "fp16", "int8", "int4", "awq", "gptq", "w4a16", "w8a8", "hf"}
TUNED: Final = {"instruct", "thinking", "base", "chat", "it", "exp", "terminus", "speciale", "meta", "nvidia"}
REVISION: Final = re.compile(r"v\d|\d{4}|\d{6}")  # of a quantised checkpoint or a month; v3.1 is a model's own
SAME: Final = {  # by their config.json: other weights in the shapes of the shipped one
    "deepseek-v3.1": "deepseek-v3", "deepseek-r1": "deepseek-v3", "llama-3.1-70b": "llama-3-70b",
    "llama-3.3-70b": "llama-3-70b", "llama-3-8b": "llama-3.1-8b",
}  # fmt: skip


def shipped_model(checkpoint: str) -> str:
    """The shipped name of a checkpoint's architecture; the name itself where none has it."""
    known = known_models()
    if checkpoint in known:
        return checkpoint
    by_shape = {_shape(name): name for name in sorted(known, key=len, reverse=True)}  # the shortest name stands
    return by_shape.get(_shape(checkpoint), checkpoint)


def _shape(name: str) -> str:
    """What is left of a name without publisher, tuning, revision and dtype: "deepseek-v3", "qwen3-235b-a22b"."""
    words = name.rpartition("/")[2].lower().split("-")
    named = [word for word in words if word not in STORED | TUNED]
    left = "-".join(word for place, word in enumerate(named) if place < 2 or not REVISION.fullmatch(word))
    return SAME.get(left, left)
