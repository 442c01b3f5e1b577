"""Formats in which engines record routing. A new format is one file here and one line in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from moesim import foreign
from moesim.errors import pick
from moesim.routing.importers.exflow import EXFLOW
from moesim.routing.importers.expert_counts import EXPERT_COUNTS
from moesim.routing.importers.flame_moe import FLAME_MOE
from moesim.routing.importers.format import Format, Options
from moesim.routing.importers.look import COUNTS, TRACE, look
from moesim.routing.importers.megatron_replay import MEGATRON_REPLAY
from moesim.routing.importers.router_logits import ROUTER_LOGITS
from moesim.routing.importers.sglang_csv import SGLANG_CSV
from moesim.routing.importers.sglang_per_pass import SGLANG_PER_PASS
from moesim.routing.importers.sglang_per_token import SGLANG_PER_TOKEN
from moesim.routing.importers.sglang_returned import SGLANG_RETURNED
from moesim.routing.importers.sglang_stat import SGLANG_STAT
from moesim.routing.importers.token_rows import TOKEN_ROWS
from moesim.routing.importers.topk_ids import TOPK_IDS
from moesim.routing.importers.trtllm import TRTLLM
from moesim.routing.importers.vllm_eplb import VLLM_EPLB
from moesim.routing.importers.vllm_returned import VLLM_RETURNED
from moesim.routing.loads import LoadRecord, read_loads
from moesim.routing.trace import RoutingTrace
from moesim.routing.trace_file import read_trace

REGISTRY: Final[dict[str, Format]] = {
    "exflow": EXFLOW,
    "expert-counts": EXPERT_COUNTS,
    "flame-moe": FLAME_MOE,
    "megatron-replay": MEGATRON_REPLAY,
    "router-logits": ROUTER_LOGITS,
    "sglang-csv": SGLANG_CSV,
    "sglang-per-pass": SGLANG_PER_PASS,
    "sglang-per-token": SGLANG_PER_TOKEN,
    "sglang-returned": SGLANG_RETURNED,
    "sglang-stat": SGLANG_STAT,
    "token-rows": TOKEN_ROWS,
    "topk-ids": TOPK_IDS,
    "trtllm": TRTLLM,
    "vllm-eplb": VLLM_EPLB,
    "vllm-returned": VLLM_RETURNED,
}

__all__ = ["REGISTRY", "Format", "Options", "find_format", "look", "read_any", "read_format"]


def read_format(name: str, path: Path, options: Options) -> RoutingTrace | LoadRecord:
    """What an engine wrote. Raises BadInput, whatever is in the file."""
    chosen = find_format(name)
    with foreign.reading(path, f"{name} recording"):
        return chosen.read(path, options)


def read_any(path: Path, options: Options) -> tuple[RoutingTrace | LoadRecord, str]:
    """A recording in any format, found by looking, and the format's name. Raises BadInput."""
    name = look(path)
    if name == TRACE:
        return read_trace(path), name
    return (read_loads(path) if name == COUNTS else read_format(name, path, options)), name


def find_format(name: str) -> Format:
    """The format of that name. Raises BadInput with the known ones."""
    return pick("trace format", name, REGISTRY)
