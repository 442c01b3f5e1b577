"""The routing section of a scenario -> a RoutingSource, checked against the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from moesim import shipped, yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.models import MoEModel
from moesim.network import AllToAll
from moesim.routing import Balanced, NoExperts, Replay, Routed, RoutingSource, Sampled, Transplant, read_trace
from moesim.routing.routers import build_router
from moesim.routing.sources import Places
from moesim.routing.sources.columns import LogitKnobs, generated, recorded
from moesim.step import Lowered
from moesim.studies.load import Loaded, Source
from moesim.studies.result import Metric
from moesim.studies.scenario import RoutingSection

TRACES = "workloads/routing"


def routing_source(
    loaded: Loaded, model: MoEModel, seed: int, places: Places
) -> tuple[RoutingSource, tuple[str, ...]]:  # fmt: skip
    """The source that the scenario names, and what the Result has to say about it. Raises BadInput."""
    routing = loaded.scenario.routing
    if routing is None:
        return NoExperts(), ()
    if routing.router is not None:
        training = loaded.scenario.batch.phase == "train"
        source: RoutingSource = routed_by(loaded, routing, model, seed, places, training=training)
    else:
        source = looked_up(routing, model, seed, loaded.where("routing.trace"))
    return source, tuple(source.notes)


def looked_up(routing: RoutingSection, model: MoEModel, seed: int, where: str) -> RoutingSource:
    """The source of a section that names no router; where: its key `trace`. Raises BadInput."""
    if routing.balanced:
        return Balanced(model, seed)
    if routing.sampled:
        return Sampled(routing.sampled, model, seed)
    trace = read_trace(trace_path(routing.trace or "", where))
    return Transplant(trace, model, seed) if routing.transplant else Replay(trace, model, seed)


def routed_by(
    loaded: Source, routing: RoutingSection, model: MoEModel, seed: int, places: Places, *, training: bool
) -> Routed:
    """A router over the logits of the trace that is named, or over generated ones. Raises BadInput."""
    where = loaded.where("routing.router")

    def place(keys: yamlfile.Keys) -> str:
        return loaded.where(yamlfile.dotted(("routing", "router", *keys)))

    router = build_router(routing.router, place)
    name = routing.router if isinstance(routing.router, str) else str((routing.router or {})["name"])
    if routing.trace:
        trace = read_trace(trace_path(routing.trace, loaded.where("routing.trace")))
        Replay(trace, model, seed)  # refuses another model's trace
        columns = recorded(trace, seed)
    else:
        columns = generated(routing.generator or LogitKnobs(), model, seed)
    try:
        return Routed(router, name, columns, model, seed, places, routing.warm_up, training)
    except BadInput as error:
        raise BadInput(error.what, where=where, way_out=error.way_out) from None


def router_facts(source: RoutingSource) -> dict[str, Any]:
    """What a Result says of the router that decided, {} where none did: its facts and what it did in this step."""
    if not isinstance(source, Routed):
        return {}
    facts, tally = source.router.facts, source.tally
    return {
        "router": source.router_name,
        "parameters": source.router.model_dump(mode="json"),
        "causal": facts.causal,
        "batch_dependent": facts.batch_dependent,
        "known": facts.prefetch,
        "stand_in": facts.stand_in,
        **tally.to_metrics(),
        "not_priced": dict(tally.extra),
    }


def router_metrics(source: RoutingSource, lowered: Lowered, tokens: int) -> dict[str, Metric]:
    """What every Result says of its routing: rows of a token, load of the hottest expert over the mean minus one (mean
    over layers), seconds of deciding and of the experts on the slowest rank; of a router also drops and tokens that no
    expert computes. Nothing where no layer has experts.
    """
    if not len(lowered.load):
        return {}
    layers = len(lowered.load)
    mean = np.maximum(lowered.load.mean(axis=1), 1e-12)
    found = {
        "mean_k": float(lowered.load.sum()) / max(tokens * layers, 1),
        "max_vio": float((lowered.load.max(axis=1) / mean - 1).mean()),
        **(source.tally.to_metrics() if isinstance(source, Routed) else {}),
    }
    seconds = {f"{name}_s": Metric(_slowest(lowered, name), "s") for name in ("router", "experts")}
    return {name: Metric(value, "1") for name, value in found.items()} | seconds


def _slowest(lowered: Lowered, kind: str) -> float:
    """Seconds of tasks of a kind, each on its slowest rank, of the expert group that takes most."""
    graph, of_group = lowered.graph, dict[int, float]()
    for task, name in enumerate(graph.name):
        if name.startswith(kind):
            lanes = slice(graph.lane_ptr[task], graph.lane_ptr[task + 1])
            first = int(graph.lane_rank[lanes][0])
            of_group[first] = of_group.get(first, 0.0) + float(graph.lane_seconds[lanes].max())
    return max(of_group.values(), default=0.0)


def merge_note(source: RoutingSource, algorithm: AllToAll) -> tuple[str, ...]:
    """A router whose tokens have one destination each saves nothing where every row is sent by itself."""
    idle = isinstance(source, Routed) and source.router.facts.merges and algorithm.deduplicates == "none"
    if not idle:
        return ()
    way_out = "deepep_normal or nvlink_domain send it once"
    return (f"router {source.name}: {algorithm.name} sends a row for each expert of a token, also to one GPU: its "
            f"few destinations save no bytes; {way_out}",)  # fmt: skip


def router_warnings(source: RoutingSource) -> tuple[str, ...]:
    """What the router did beside its rows, which no price is put on."""
    extra = router_facts(source).get("not_priced", {})
    work = ", ".join(f"{name.replace('_', ' ')} {number:.6g}" for name, number in extra.items() if number)
    return (f"router {router_facts(source)['router']}: counted, not priced: {work}",) if work else ()


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
