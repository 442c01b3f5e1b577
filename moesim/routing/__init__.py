"""Routing: traces of which token went to which expert, and the sources that answer that question in a simulation."""

from __future__ import annotations

from moesim.routing.shape import NO_EXPERT, RoutingShape, digest_of, routing_digest
from moesim.routing.sources import Balanced, NoExperts, Replay, Routed, RoutingSource, Rows, Sampled, Transplant
from moesim.routing.trace import PHASES, RoutingTrace, TraceHeader, count_experts, make_trace
from moesim.routing.trace_file import TraceFile, open_trace, read_trace, write_trace

__all__ = [
    "NO_EXPERT",
    "PHASES",
    "Balanced",
    "NoExperts",
    "Replay",
    "Routed",
    "RoutingShape",
    "RoutingSource",
    "RoutingTrace",
    "Rows",
    "Sampled",
    "TraceFile",
    "TraceHeader",
    "Transplant",
    "count_experts",
    "digest_of",
    "make_trace",
    "open_trace",
    "read_trace",
    "routing_digest",
    "write_trace",
]
