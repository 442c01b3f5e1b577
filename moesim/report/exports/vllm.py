"""A served run as `vllm bench serve --save-result --save-detailed` writes one.

Names as in vLLM's benchmarks/serve.py (its `result`, read 2026-11): seconds in lists, ms in statistics. Gaps between
tokens (`itls`) are not stored by request, and texts are nobody's, so both lists are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from moesim.errors import BadInput
from moesim.report.exports.requests import requests_of
from moesim.report.stored import StoredRun

RENAMED: Final = {"duration_s": "duration", "total_input": "total_input_tokens", "total_output": "total_output_tokens"}
KEPT: Final = ("completed", "request_throughput", "request_goodput", "output_throughput",
               "total_token_throughput", "max_concurrent_requests")  # fmt: skip
WHOLE: Final = ("completed", "total_input_tokens", "total_output_tokens", "max_concurrent_requests")
STATISTICS: Final = ("_ttft_ms", "_tpot_ms", "_itl_ms", "_e2el_ms")


def made(run: StoredRun) -> bytes:
    """One JSON document. Raises BadInput."""
    metrics, provenance = run.document["metrics"], run.document["provenance"]
    if len(provenance["seeds"]) > 1:
        raise BadInput(f"its numbers are means of {len(provenance['seeds'])} seeds, its rows are of the first",
                       where=run.folder, way_out="--as aiperf or parquet, or a run with seeds: 1")  # fmt: skip
    rows = requests_of(run)
    result = {
        "backend": "moesim", "label": provenance["scenario"], "model_id": provenance["model"],
        "tokenizer_id": provenance["model"], "num_prompts": len(rows),
        **_numbers(metrics),
        "failed": sum(bool(one.error) for one in rows),
        "input_lens": [one.input for one in rows],
        "output_lens": [0 if one.error else one.output for one in rows],
        "ttfts": [one.ttft for one in rows],
        "latencies": [one.latency for one in rows],
        "start_times": [one.sent for one in rows],
        "errors": [one.error for one in rows],
    }  # fmt: skip
    return json.dumps(result, allow_nan=False).encode() + b"\n"


def _numbers(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in metrics if name.endswith(STATISTICS) and not name.startswith("class_")]
    found = {new: metrics[old]["value"] for old, new in RENAMED.items() if old in metrics}
    found |= {name: metrics[name]["value"] for name in (*KEPT, *names) if name in metrics}
    return {name: int(value) if name in WHOLE and value == int(value) else value for name, value in found.items()}
