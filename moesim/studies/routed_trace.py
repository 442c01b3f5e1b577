"""`moesim trace route`: what decides a scenario's routing becomes a trace, step after step, warm-up and all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing import NO_EXPERT, PHASES, Routed, RoutingTrace, TraceHeader
from moesim.routing.routers import Assignment
from moesim.step import Batch
from moesim.studies.build import Built, build
from moesim.studies.load import Loaded


def routed_trace(loaded: Loaded, seed: int, steps: int) -> RoutingTrace:
    """The experts that compute every token of `steps` batches, in every layer. A router that learns goes on learning
    from step to step: step s has seen `warm_up` + s batches. Raises BadInput where rows are no tokens (slots).
    """
    if not loaded.scenario.routing:
        raise BadInput("has no routed experts", where=loaded.where("routing"), way_out="a scenario with routing")
    tables, facts = [], []
    built = build(loaded, seed)
    for step in range(steps):
        if step and isinstance(built.plan.routing, Routed):
            built = build(_later(loaded, step), seed)
        requests = built.batches[0].request
        batch = replace(built.batches[0], request=requests + step * (int(requests.max()) + 1))
        tables.append(_table(built, batch))
        facts.append(_facts(built, batch, step))
    width = max(table.shape[2] for table in tables)
    expert = np.concatenate([_wide(table, width) for table in tables])
    columns: dict[str, Any] = {name: np.concatenate([one[name] for one in facts]) for name in facts[0]}
    return RoutingTrace(_header(built, width, columns["domain"]), expert, **columns)


def _later(loaded: Loaded, step: int) -> Loaded:
    """The scenario with a router that has seen `step` batches more."""
    routing = loaded.scenario.routing
    if not step or routing is None or routing.router is None:
        return loaded
    later = routing.model_copy(update={"warm_up": routing.warm_up + step})
    return replace(loaded, scenario=loaded.scenario.model_copy(update={"routing": later}))


def _table(built: Built, batch: Batch) -> npt.NDArray[np.uint16]:
    """uint16[T, layers, k], NO_EXPERT after the last of each token."""
    found = [_layer(built, batch, layer) for layer in range(len(built.model.moe_layers))]
    width = max(table.shape[1] for table in found)
    return np.stack([_wide(table, width) for table in found], axis=1)


def _layer(built: Built, batch: Batch, layer: int) -> npt.NDArray[np.uint16]:
    source, who = built.plan.routing, (batch.token_request, batch.token_position)
    if not isinstance(source, Routed):
        return source.experts(layer, *who)
    ranks = batch.token_rank
    found = source.assignment(layer, *who, ranks)
    if found.unit != "token" or found.units != batch.tokens:
        way_out = "router: topk_softmax, or another in which tokens choose"
        raise BadInput(f"{source.router_name} fills slots, a trace has tokens", where="routing.router", way_out=way_out)
    return _distinct(found)


def _distinct(found: Assignment) -> npt.NDArray[np.uint16]:
    """uint16[T, k]: each expert of a token once, whatever round it computes in, in the order of the rows."""
    moves = np.flatnonzero(found.moves)
    cell = found.token[moves] * found.physical + found.expert[moves] % found.physical
    first = np.sort(np.unique(cell, return_index=True)[1])
    token, expert = np.divmod(cell[first], found.physical)
    order = np.argsort(token, kind="stable")
    token, expert = token[order], expert[order]
    count = np.bincount(token, minlength=found.units)
    column = np.arange(len(token)) - (np.cumsum(count) - count)[token]
    table = np.full((found.units, max(int(count.max(initial=0)), 1)), NO_EXPERT, dtype=np.uint16)
    table[token, column] = expert
    return table


def _wide(table: npt.NDArray[np.uint16], width: int) -> npt.NDArray[np.uint16]:
    pad = [(0, 0)] * (table.ndim - 1) + [(0, width - table.shape[-1])]
    return np.pad(table, pad, constant_values=NO_EXPERT)


def _facts(built: Built, batch: Batch, step: int) -> dict[str, npt.NDArray[Any]]:
    """The columns of a trace that say who each token is."""
    request, position = batch.token_request, batch.token_position
    phase = np.full(batch.tokens, PHASES.index(built.scenario.batch.phase), dtype=np.uint8)
    source = built.plan.routing
    domain = source.domain(request, position) if isinstance(source, Routed) else np.zeros(batch.tokens)
    return {
        "request": request.astype(np.int32), "position": position.astype(np.int32), "phase": phase,
        "domain": domain.astype(np.uint8), "step": np.full(batch.tokens, step, dtype=np.int32),
        "source_rank": batch.token_rank.astype(np.int32),
    }  # fmt: skip


def _header(built: Built, width: int, domain: npt.NDArray[Any]) -> TraceHeader:
    model, source = built.model, built.plan.routing
    domains = tuple(f"domain {number}" for number in range(int(domain.max(initial=0)) + 1))
    basis = f"routed: {source.name}; {source.basis}"
    layers = len(model.moe_layers)
    return TraceHeader(model.name, layers, model.num_experts, width, "moesim trace route", domains, basis)
