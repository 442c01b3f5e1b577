"""`run`: one scenario, one seed -> Result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.costs import error_draw
from moesim.engine import check_timeline
from moesim.errors import pick
from moesim.step import Lowered, lower
from moesim.step.whole import NOTE as MATRICES
from moesim.studies.band import COVERAGE, Band, band, spreads
from moesim.studies.basis import borrowed, price_notes
from moesim.studies.build import Built, build, with_rows
from moesim.studies.congestion import congestion
from moesim.studies.ladder import Ladder, climb
from moesim.studies.load import Named, Overrides, load
from moesim.studies.lost import lost_tokens, lost_words
from moesim.studies.metrics import metrics
from moesim.studies.narrow import narrow_notes
from moesim.studies.operators import from_cache, operators
from moesim.studies.overlap import overlap_facts, overlap_notes
from moesim.studies.result import Played, Result
from moesim.studies.routing import router_facts, router_warnings
from moesim.version import __version__


def run(
    scenario: Named, *, overrides: Overrides = (), seed: int = 0, draw_errors: bool = False, apart: str = "",
    factors: Mapping[str, float] | None = None, loop: bool = False, tell: Callable[[str], None] = lambda stage: None,
) -> Result:  # fmt: skip
    """Play one step of whatever `load` takes. Raises BadInput, DoesNotFit, Deadlock.

    The seed picks the recorded requests that are looked up; with `draw_errors` it also draws one factor per error
    family of the costs (`apart`: see error_draw), `factors` sets them; otherwise every cost is its median and the
    metrics carry their 80 % band. loop: it is one of many (see choose_level). `tell` hears what begins.
    """
    loaded = load(scenario, overrides)
    placed = f", experts placed by {loaded.scenario.experts.placement}" if loaded.scenario.routing else ""
    tell(f"building the step{placed}")
    with loaded.placing():
        built = build(loaded, seed)
        lowered = lower(built.plan, built.batches)
        built = with_rows(built, lowered)
    draw = error_draw(spreads(built), seed, apart) if draw_errors else _set_factors(built, factors or {})
    tell("playing the step")
    ladder = climb(built.plan, lowered, built.scenario.network, draw, built.faults, loop=loop)
    check_timeline(lowered.graph, ladder.timeline)
    tell("playing the ends of its band")
    return _result(built, lowered, ladder, seed, draw, None if draw_errors or factors else band(built, lowered))


def _set_factors(built: Built, factors: Mapping[str, float]) -> Mapping[str, float]:
    """The factors, each of a family that this step has. Raises BadInput."""
    known = spreads(built)
    for family in factors:
        pick("family of costs", family, known, where=f"error.{family}")
    return factors


def _result(
    built: Built, lowered: Lowered, ladder: Ladder, seed: int, draw: Mapping[str, float], found: Band | None
) -> Result:
    fabric = built.plan.fabric
    played = Played(
        cluster=built.cluster,
        graph=lowered.graph,
        timeline=ladder.timeline,
        expert_load=lowered.load,
        sent=lowered.sent,
        link_capacity=fabric.capacity,
        link_name=fabric.link_name,
        memory=built.memory,
        plan=built.plan,
        phase=built.scenario.batch.phase,
        demand=lowered.demand,
    )
    return Result(
        name=built.scenario.name,
        metrics=metrics(built, lowered, ladder, found),
        breakdown=ladder.breakdown,
        provenance=_provenance(built, lowered, ladder, seed, draw) | _band_provenance(found),
        warnings=_warnings(built, lowered, ladder),
        played=played,
    )


def _provenance(
    built: Built, lowered: Lowered, ladder: Ladder, seed: int, draw: Mapping[str, float]
) -> dict[str, Any]:  # fmt: skip
    plan, log = built.plan, built.log
    return {
        "moesim": __version__,
        "scenario": built.scenario.name,
        "scenario_hash": built.scenario.digest,
        "seed": seed,
        "model": built.model.name,
        "topology": built.cluster.name,
        **({"devices": built.cluster.kinds} if built.cluster.kinds else {}),
        "costs": built.costs.name,
        "kernel_set": built.costs.kernels,
        "kernels": dict(sorted(log.kernels.items())),
        **({"borrowed": words} if (words := borrowed(built.costs, built.cluster.devices[0].name)) else {}),
        "costs_basis": {family: log.basis[family] for family in sorted(log.basis)},
        "outside_measured": {family: log.outside[family] / log.asked[family] for family in sorted(log.asked)},
        "error_draw": dict(draw),
        "routing": plan.routing.basis,
        "routing_source": plan.routing.name,
        **({"router": facts} if (facts := router_facts(plan.routing)) else {}),
        **({"tensor_parallel": spread} if (spread := plan.ops.spread.words) else {}),
        **(_of_experts(built, lowered) if built.model.routed else {}),
        **({"overlap": facts} if (facts := overlap_facts(plan)) else {}),
        "player": ladder.player,
        "player_reason": ladder.reason,
        "contention": ladder.contention,
        "compute_slowdown_by_held_sms": max(plan.stretch(node) for node in lowered.nodes),
        **({} if plan.interference == 1.0 else {"compute_slowdown_beside_transfers": plan.interference}),
        "ignored_overlap_s": ladder.timeline.ignored_overlap_s,
        "congestion": congestion(built, lowered, ladder),
        "operators": _operators(built, lowered, ladder, draw),
    }


def _of_experts(built: Built, lowered: Lowered) -> dict[str, Any]:
    algorithm = built.plan.dispatch.algorithm
    return {
        "placement": built.placement_source,
        "hottest_expert": _hottest(built, lowered.load, "expert {} of"),
        "hottest_rank": _hottest(built, lowered.rank_load, "GPU {} in"),
        "dispatch": algorithm.name,
        "dispatch_basis": built.plan.fabric.communication[algorithm.kernel(built.plan.expert_group)].basis,
    }


def _operators(built: Built, lowered: Lowered, ladder: Ladder, draw: Mapping[str, float]) -> list[dict[str, Any]]:
    ideal = ladder.breakdown["ideal_compute_s"] or 0.0
    device = built.cluster.mean_device(built.plan.layout.world)
    return [one.to_json() for one in operators(lowered, device, ideal, draw)]


def _band_provenance(found: Band | None) -> dict[str, Any]:
    """How sure the step time is, and which family of costs that comes from."""
    if found is None:
        return {"band": None}
    factors = {family: [low, high] for family, (low, high) in sorted(found.by_family.items())}
    return {"band": {"coverage": COVERAGE, "step_time_factors": factors}}


def _hottest(built: Built, rows: npt.NDArray[np.int64], what: str) -> str:
    """rows int64[moe layers, of what]; what: "expert {} of"."""
    ratio = rows / np.maximum(rows.mean(axis=1, keepdims=True), 1e-12)
    layer, number = np.unravel_index(np.argmax(ratio), ratio.shape)
    where = f"{what.format(number)} layer {built.model.moe_layers[layer]}"
    return f"{where}: {ratio[layer, number]:.2f} times its layer's mean"


def _published(built: Built) -> list[str]:
    """What a published figure beside the prediction rests on, and what this run does not have."""
    published = built.scenario.published
    if published is None:
        return []
    return [f"published figure: {published.source}; not modelled here: {'; '.join(published.missing)}"]


def _warnings(built: Built, lowered: Lowered, ladder: Ladder) -> tuple[str, ...]:
    prices = price_notes(built.log, built.costs, built.cluster.devices[0].name)
    narrow = narrow_notes(built.plan, built.batches[0])
    overlap = ladder.timeline.ignored_overlap_s
    ignored = [f"overlap of transfers worth {overlap:.3g} s was ignored by port loads"] if overlap > 0 else []
    routers = router_warnings(built.plan.routing)
    lost = lost_tokens(built, lowered, ladder.timeline)
    gone = [lost_words(lost, built)] if lost else []
    beliefs = overlap_notes(built.plan, lowered)
    muon = [MATRICES] if built.plan.optimizer.orthogonal else []
    fast = from_cache(operators(lowered, built.cluster.mean_device(built.plan.layout.world), 0.0, {}))
    words = (*built.warnings, *beliefs, *muon, *prices, *fast, *narrow, *ignored, *routers, *ladder.notes, *gone)
    return (*words, *_published(built))
