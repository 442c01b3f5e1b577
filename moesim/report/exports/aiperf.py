"""Requests of a served run as AIPerf's profile_export.jsonl has them: metadata, metrics and error of each.

Names as in AIPerf's documentation of profile exports; its `inter_token_latency` is vLLM's TPOT. Times are nanoseconds
from the start of the run, not of an epoch; who worked and when a server acknowledged is not simulated.
"""

from __future__ import annotations

import json
from typing import Any

from moesim.report.exports.requests import Request, requests_of
from moesim.report.stored import StoredRun


def made(run: StoredRun) -> bytes:
    """A JSON object a line. Raises BadInput."""
    return "".join(json.dumps(_record(one), allow_nan=False) + "\n" for one in requests_of(run)).encode()


def _record(one: Request) -> dict[str, Any]:
    error = {"code": None, "type": one.error, "message": f"the request was {one.error}"} if one.error else None
    return {"metadata": _metadata(one), "metrics": _failed(one) if one.error else _metrics(one), "error": error}


def _metadata(one: Request) -> dict[str, Any]:
    ended = one.sent if one.ended is None else one.ended
    return {
        "session_num": one.session, "x_request_id": f"request-{one.number}",
        "x_correlation_id": f"session-{one.session}", "conversation_id": f"session-{one.session}",
        "turn_index": one.turn, "request_start_ns": round(one.sent * 1e9), "request_ack_ns": None,
        "request_end_ns": round(ended * 1e9), "worker_id": "moesim", "record_processor_id": "moesim",
        "benchmark_phase": "profiling", "was_cancelled": False, "cancellation_time_ns": None,
    }  # fmt: skip


def _metrics(one: Request) -> dict[str, Any]:
    found = {
        "input_sequence_length": (one.input, "tokens"),
        "output_sequence_length": (one.output, "tokens"),
        "output_token_count": (one.output, "tokens"),
        "time_to_first_token": (one.ttft * 1e3, "ms"),
        "request_latency": (one.latency * 1e3, "ms"),
    }
    if one.tpot > 0:
        found |= {
            "inter_token_latency": (one.tpot * 1e3, "ms"),
            "output_token_throughput_per_user": (1 / one.tpot, "tokens/sec/user"),
        }
    return {name: {"value": value, "unit": unit} for name, (value, unit) in found.items()}


def _failed(one: Request) -> dict[str, Any]:
    return {"error_isl": {"value": one.input, "unit": "tokens"}}
