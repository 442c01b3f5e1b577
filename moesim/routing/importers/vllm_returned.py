"""vLLM's `enable_return_routed_experts`: JSON lines of OpenAI answers, `choices[i].routed_experts` = base64 of a .npy.

Shape [sequence - 1 - start, layers, k], uint8 up to 256 experts and uint16 above. The same as nested lists is read
too, and `outputs` of the offline API or bare `routed_experts` in place of `choices`.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim import atomic
from moesim.errors import BadInput
from moesim.routing.arrays import read_json_lines, read_npy
from moesim.routing.importers.bare import nested
from moesim.routing.importers.format import Format, Options, all_layers, tokens_of
from moesim.routing.importers.returned import by_request, prompt_length, trace_of
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace


def read(path: Path, options: Options) -> RoutingTrace:
    """Every choice of every line is a request. Raises BadInput naming the line."""
    requests, starts, prompts = [], [], []
    for number, line in enumerate(read_json_lines(path), 1):
        where = f"{path}:{number}"
        try:
            for choice in line.get("choices") or line.get("outputs") or [line]:
                requests.append(_ids(choice["routed_experts"], where))
                starts.append(int(line.get("routed_experts_prompt_start", 0)))
                prompts.append(_prompt(line, starts[-1]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"no routed experts ({error})", where=where) from None
    return trace_of("vllm-returned", path, options, requests, starts, prompts)


def _ids(value: Any, where: str) -> npt.NDArray[Any]:
    """[T, layers, k] out of base64 or of nested lists."""
    if isinstance(value, list):
        return nested(value, where)
    data = base64.b64decode(value, validate=True)
    return read_npy(io.BytesIO(data), len(data), where)


def _prompt(line: dict[str, Any], start: int) -> int:
    """Tokens of the prompt as the answer says, or all rows count as decoded from `start`."""
    given = line.get("usage", {}).get("prompt_tokens")
    return int(given if given is not None else len(line.get("prompt_token_ids") or ()) or start)


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """One line with one choice a request."""
    trace = tokens_of(record, path)
    wide = all_layers(trace).astype(np.uint8 if trace.header.num_experts <= 256 else np.uint16)
    lines = []
    for rows in by_request(trace):
        stream = io.BytesIO()
        np.save(stream, wide[rows], allow_pickle=False)
        answer = {
            "choices": [{"index": 0, "routed_experts": base64.b64encode(stream.getvalue()).decode()}],
            "usage": {"prompt_tokens": prompt_length(trace, rows)},
            "routed_experts_prompt_start": int(trace.position[rows[0]]),
        }
        lines.append(json.dumps(answer))
    atomic.write(path, "\n".join(lines) + "\n")


VLLM_RETURNED = Format(
    "vllm-returned", "JSON lines with choices[i].routed_experts (base64 or lists)", True, read, write
)
