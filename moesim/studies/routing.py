"""The routing section of a scenario -> a RoutingSource, checked against the model."""

from __future__ import annotations

from pathlib import Path

from moesim import shipped
from moesim.errors import unknown_name
from moesim.models import MoEModel
from moesim.routing import Balanced, Replay, RoutingSource, Sampled, Transplant, read_trace
from moesim.studies.load import Loaded

TRACES = "workloads/routing"


def routing_source(loaded: Loaded, model: MoEModel, seed: int) -> tuple[RoutingSource, tuple[str, ...]]:
    """The source that the scenario names, and what the Result has to say about it. Raises BadInput."""
    routing = loaded.scenario.routing
    if routing.balanced:
        source: RoutingSource = Balanced(model, seed)
    elif routing.sampled:
        source = Sampled(routing.sampled, model, seed)
    else:
        trace = read_trace(trace_path(routing.trace or "", loaded.where("routing.trace")))
        source = Transplant(trace, model, seed) if routing.transplant else Replay(trace, model, seed)
    return source, tuple(source.notes)


def trace_path(name_or_path: str, where: str = "") -> Path:
    """A shipped trace's name or a Parquet file. Raises BadInput with the shipped names."""
    path = Path(name_or_path)
    if path.suffix == ".parquet" and path.exists():
        return path
    known = shipped.names(TRACES, ".parquet")
    name = name_or_path.removeprefix(f"{TRACES}/").removesuffix(".parquet")
    if name not in known:
        raise unknown_name("trace", name_or_path, known, where=where)
    return known[name]
