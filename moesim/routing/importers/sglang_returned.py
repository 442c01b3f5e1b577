"""SGLang's `return_routed_experts`: JSON lines of responses, `meta_info.routed_experts` = base64 of raw int32.

Shape [sequence - 1 - start, all layers, k]; dense layers are present and zero. The response does not say k or the
number of layers, so both come from the model, or from the fields `num_hidden_layers` and `top_k` of the line.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim import atomic
from moesim.errors import BadInput
from moesim.routing.arrays import read_json_lines
from moesim.routing.importers.bare import nested
from moesim.routing.importers.format import Format, Options, all_layers, tokens_of, whole
from moesim.routing.importers.returned import by_request, prompt_length, trace_of
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace


def read(path: Path, options: Options) -> RoutingTrace:
    """Raises BadInput naming the line."""
    lines = read_json_lines(path)
    requests, starts, prompts = [], [], []
    for number, line in enumerate(lines, 1):
        try:
            meta = line["meta_info"]
            start = int(meta.get("routed_experts_start_len", 0))
            requests.append(_ids(meta, options))
            starts.append(start)
            prompts.append(int(meta.get("prompt_tokens", start)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"no routed experts ({error})", where=f"{path}:{number}") from None
    return trace_of("sglang-returned", path, options, requests, starts, prompts)


def _ids(meta: dict[str, Any], options: Options) -> npt.NDArray[np.int32]:
    if isinstance(meta["routed_experts"], list):
        return whole(nested(meta["routed_experts"], "routed_experts"), "experts", "routed_experts").astype(np.int32)
    layers = int(meta.get("num_hidden_layers", 0)) or (max(options.model.moe_layers) + 1 if options.model else 0)
    top_k = int(meta.get("top_k", 0)) or (options.model.top_k if options.model else options.top_k or 0)
    if not layers or not top_k:
        raise ValueError("give the model: the response does not say how many layers and experts a token has")
    data = base64.b64decode(meta["routed_experts"], validate=True)
    if len(data) % (4 * layers * top_k):
        raise ValueError(f"{len(data)} bytes are no whole number of tokens of {layers} layers with top-{top_k}")
    return np.frombuffer(data, dtype="<i4").reshape(-1, layers, top_k)


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """One line a request."""
    trace = tokens_of(record, path)
    wide = all_layers(trace).astype("<i4")
    lines = []
    for rows in by_request(trace):
        meta = {
            "prompt_tokens": prompt_length(trace, rows),
            "routed_experts_start_len": int(trace.position[rows[0]]),
            "num_hidden_layers": wide.shape[1],
            "top_k": wide.shape[2],
            "routed_experts": base64.b64encode(wide[rows].tobytes()).decode(),
        }
        lines.append(json.dumps({"meta_info": meta}))
    atomic.write(path, "\n".join(lines) + "\n")


SGLANG_RETURNED = Format("sglang-returned", "JSON lines with meta_info.routed_experts", True, read, write)
