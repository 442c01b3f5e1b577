"""Batch policies: what a step is made of. A policy is one file here, `fill(tray)`, and one line in REGISTRY."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from moesim.serving.batcher import decode_first, prefill_first, whole_prompts
from moesim.serving.batcher.tray import Queue, Tray


class Policy(NamedTuple):
    """fill: puts a step together; chunked: prompts may be cut."""

    fill: Callable[[Tray], None]
    chunked: bool


REGISTRY: Final[Mapping[str, Policy]] = {
    "decode_first": Policy(decode_first.fill, True),
    "prefill_first": Policy(prefill_first.fill, True),
    "whole_prompts": Policy(whole_prompts.fill, False),
}

__all__ = ["REGISTRY", "Policy", "Queue", "Tray"]
