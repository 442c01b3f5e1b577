"""Formats in which engines record routing. A new format is one file here and one line in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from moesim import foreign
from moesim.errors import pick
from moesim.routing.importers.exflow import EXFLOW
from moesim.routing.importers.flame_moe import FLAME_MOE
from moesim.routing.importers.format import Format, Options
from moesim.routing.importers.router_logits import ROUTER_LOGITS
from moesim.routing.importers.sglang_per_pass import SGLANG_PER_PASS
from moesim.routing.importers.sglang_per_token import SGLANG_PER_TOKEN
from moesim.routing.importers.sglang_returned import SGLANG_RETURNED
from moesim.routing.importers.sglang_stat import SGLANG_STAT
from moesim.routing.importers.trtllm import TRTLLM
from moesim.routing.importers.vllm_eplb import VLLM_EPLB
from moesim.routing.importers.vllm_returned import VLLM_RETURNED
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace

REGISTRY: Final[dict[str, Format]] = {
    "exflow": EXFLOW,
    "flame-moe": FLAME_MOE,
    "router-logits": ROUTER_LOGITS,
    "sglang-per-pass": SGLANG_PER_PASS,
    "sglang-per-token": SGLANG_PER_TOKEN,
    "sglang-returned": SGLANG_RETURNED,
    "sglang-stat": SGLANG_STAT,
    "trtllm": TRTLLM,
    "vllm-eplb": VLLM_EPLB,
    "vllm-returned": VLLM_RETURNED,
}

__all__ = ["REGISTRY", "Format", "Options", "find_format", "read_format"]


def read_format(name: str, path: Path, options: Options) -> RoutingTrace | LoadRecord:
    """What an engine wrote. Raises BadInput, whatever is in the file."""
    chosen = find_format(name)
    with foreign.reading(path, f"{name} recording"):
        return chosen.read(path, options)


def find_format(name: str) -> Format:
    """The format of that name. Raises BadInput with the known ones."""
    return pick("trace format", name, REGISTRY)
