"""Which format a file is in, by what is in it: its first bytes, then its names and shapes; never by its extension.

Where two readings are possible (an array of whole numbers may be ids or counts) and the numbers do not decide, the
file is refused with both names: a wrong guess would be a wrong placement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from moesim import foreign
from moesim.errors import BadInput
from moesim.routing.arrays import npz_names, read_json_lines
from moesim.routing.importers.bare import NPY, PARQUET, UNNAMED, ZIP, Array, by_layer, first_bytes, named_arrays, nested
from moesim.routing.importers.expert_counts import NAMES as COUNT_NAMES
from moesim.routing.importers.sglang_csv import HEADER
from moesim.routing.importers.token_rows import LAYER, TOPK, said
from moesim.routing.loads import is_loads

TRACE, COUNTS = "moesim trace", "moesim counts"
BY_ARRAY: Final[Mapping[str, str]] = {
    "global_physical_count": "sglang-per-pass", "topk_ids": "sglang-per-token", "expert_load_window": "vllm-eplb",
    "router_logits": "router-logits", "logical_count": "sglang-stat",
}  # fmt: skip
BARE_NAMES: Final = (UNNAMED, "arr_0", "ids", *TOPK, "routed_experts")  # of a lone array; "arr_0" is numpy's own
ANSWERS: Final = ("choices", "outputs", "routed_experts")
DEEPEST: Final = 512  # layers; longer 2-D arrays count tokens
TORCH_ZIP: Final = re.compile(r"(^|/)data\.pkl$")
PICKLE: Final = b"\x80"
REQUESTS: Final = frozenset({"input_length", "output_length"})  # of Mooncake's lines, and of tools that write the same
WAY_OUT: Final = "name the format (moesim trace formats)"


def look(path: Path) -> str:
    """The name of a format, or TRACE or COUNTS for files of moesim itself. Raises BadInput saying what was found."""
    with foreign.reading(path, "recording of routing", WAY_OUT):
        if path.is_dir():
            return _folder(path)
        head = first_bytes(path)
        if head.startswith(PARQUET):
            return TRACE
        if head.startswith(ZIP):
            return _archive(path)
        if head.startswith(NPY):
            return _bare(named_arrays(path)[UNNAMED], path)
        if head.startswith(PICKLE):
            raise _torch(path)
        if head[8:9] == b"{":
            return _named(named_arrays(path), path)
        return _text(path)


def _folder(path: Path) -> str:
    if (path / "meta_info.json").exists():
        return "trtllm"
    if any(path.glob("layer_*.parquet")):
        return "flame-moe"
    raise BadInput("is a folder without meta_info.json or layer_LL.parquet", where=path, way_out=WAY_OUT)


def _torch(path: Path) -> BadInput:
    return BadInput(
        "is a torch file, which may run code", where=path, way_out=f"moesim trace unpack {path} -o FILE.npz"
    )


def _archive(path: Path) -> str:
    """An npz by the names of its arrays."""
    names = npz_names(path)
    if any(TORCH_ZIP.search(name) for name in names):
        raise _torch(path)
    if is_loads(names):
        return COUNTS
    known = [form for name, form in BY_ARRAY.items() if name in names and (len(names) > 1 or name != "topk_ids")]
    return known[0] if known else _named(named_arrays(path), path)


def _named(arrays: Mapping[str, Array], path: Path) -> str:
    """Arrays under names of the user's: one of them, counts, or one a layer."""
    if any(name in arrays for name in COUNT_NAMES):
        return "expert-counts"
    layers = by_layer(arrays)
    if not layers and len(arrays) == 1 and next(iter(arrays)) in BARE_NAMES:
        return _bare(next(iter(arrays.values())), path)
    kinds = {(values.ndim, values.dtype.kind in "iu") for values in layers.values()}
    forms = {(2, False): "router-logits", (2, True): "megatron-replay", (1, True): "expert-counts"}
    if len(kinds) == 1 and (kind := kinds.pop()) in forms:
        return forms[kind]
    raise BadInput(f"holds arrays {', '.join(sorted(arrays))[:120]}", where=path, way_out=WAY_OUT)


def _bare(values: Array, path: Path) -> str:
    """One array: ids where no token has an expert twice, counts where all layers of a step counted as much."""
    what = f"an array of {values.dtype} {values.shape}"
    if values.ndim == 3 and values.dtype.kind == "f" and not (values < 0).any():
        return "expert-counts"
    if values.dtype.kind not in "iu" or values.ndim not in (2, 3) or not values.size:
        raise BadInput(f"holds {what}", where=path, way_out=WAY_OUT)
    ids, counts = _as_ids(values), _as_counts(values)
    if ids == counts:
        forms = ("topk-ids" if values.ndim == 3 else "exflow", "expert-counts")
        why = "both ids and counts fit" if ids else "neither ids nor counts of layers that counted as much"
        raise BadInput(f"holds {what}: {why}", where=path,
                       way_out=f"moesim trace import {' or '.join(forms)}")  # fmt: skip
    return ("topk-ids" if values.ndim == 3 else "exflow") if ids else "expert-counts"


def _as_ids(values: Array) -> bool:
    """Whether [tokens, layers, k] may be ids; of [tokens, layers] only more tokens than models have layers say it."""
    if values.min() < -1:
        return False
    if values.ndim == 2:
        return len(values) > DEEPEST
    ordered = np.sort(values, axis=2)
    same = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] > 0)  # dense layers are zeros
    return not same.any()


def _as_counts(values: Array) -> bool:
    """Whether [(steps,) layers, experts] may be counts: as many choices in every layer of a step that has any."""
    if values.min() < 0 or values.shape[-1] < 2:
        return False
    sums = values.sum(axis=-1, dtype=np.int64).reshape(-1, values.shape[-2])
    most = sums.max(axis=1, keepdims=True)
    return bool(most.any()) and bool(((sums == most) | (sums == 0)).all())


def _text(path: Path) -> str:
    """JSON, JSON lines or CSV."""
    raw = foreign.read_bytes(path)
    start = raw[:4096].decode("utf-8-sig", errors="replace").lstrip()
    if start.startswith(",".join(HEADER)) or start.replace(" ", "").startswith(",".join(HEADER)):
        return "sglang-csv"
    if start[:1] not in ("{", "["):
        raise BadInput("is no recording of routing that moesim knows", where=path, way_out=WAY_OUT)
    rows = read_json_lines(path)
    if rows and isinstance(rows[0], dict):
        return _row(rows[0], path)
    return _bare(nested(rows, path), path)


def _row(row: dict[str, Any], path: Path) -> str:
    """By the names in the first row, or in the only document."""
    if any(name in row for name in COUNT_NAMES):
        return "expert-counts"
    if "meta_info" in row:
        return "sglang-returned"
    if any(name in row for name in ANSWERS):
        return "vllm-returned"
    if said(row, LAYER) is not None and said(row, TOPK) is not None:
        return "token-rows"
    if row.keys() >= REQUESTS:
        way_out = f"a scenario of mode: serve replays them: requests.arrivals.replay.file: {path}"
        raise BadInput("holds requests, and no routing", where=path, way_out=way_out)
    lists = {name: nested(values, path) for name, values in row.items() if isinstance(values, list)}
    if lists and len(lists) == len(row):
        return _named(lists, path)
    raise BadInput(f"holds {json.dumps(sorted(row))[:100]}", where=path, way_out=WAY_OUT)
