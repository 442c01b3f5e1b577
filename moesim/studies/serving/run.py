"""`run_serving`: one scenario, one seed or several -> ServeResult."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from moesim.errors import BadInput, DoesNotFit
from moesim.layout import HBM
from moesim.serving import Requests, Served, serve
from moesim.serving.metrics import Numbers, breakdown, counted, e2el, numbers, ttft, window
from moesim.serving.prefixes import Hashed, check_blocks
from moesim.serving.series import series
from moesim.serving.steady import grows, transient
from moesim.step.pace import Pace
from moesim.studies.basis import price_notes
from moesim.studies.interval import CONFIDENCE, half_width
from moesim.studies.load import Named, Overrides
from moesim.studies.metrics import memory_rows
from moesim.studies.prices import PAID
from moesim.studies.result import Findings, Metric
from moesim.studies.serving.build import ServeBuilt, build_serving
from moesim.studies.serving.cache_notes import cache_notes
from moesim.studies.serving.costs import costs
from moesim.studies.serving.fleet import check_answered, fleet_notes
from moesim.studies.serving.load import ServeLoaded, load_serving
from moesim.studies.serving.order_notes import order_notes
from moesim.studies.serving.pool_sections import ROLES
from moesim.studies.serving.pools import Pools, build_pools
from moesim.studies.serving.stages import BuiltStage, stage_gpus
from moesim.units import from_ps, to_ps
from moesim.version import __version__

FEWEST_COUNTED = 0.02  # of requests, below which a warm-up has left too little to speak of


@dataclass(frozen=True)
class Once:
    """One seed's run. parts, lookups: of each pool; since: ps before which nothing is counted."""

    seed: int
    parts: tuple[ServeBuilt, ...]
    served: Served
    since: int
    numbers: Mapping[str, tuple[float, str]]
    breakdown: Mapping[str, float]
    notes: tuple[str, ...]
    lookups: tuple[Mapping[str, float], ...]
    pools: Pools | None
    digest: str

    @property
    def built(self) -> ServeBuilt:
        """Where requests come in."""
        return self.parts[0]


@dataclass(frozen=True)
class ServeResult(Findings):
    """Of a serving run; first: the first seed's, for pictures and rows."""

    first: Once = field(compare=False, repr=False)


def run_serving(
    scenario: Named, *, overrides: Overrides = (), seed: int = 0,
    tell: Callable[[str], None] = lambda stage: None,
) -> ServeResult:  # fmt: skip
    """Serve the scenario's requests with seeds `seed`, seed + 1 ... Raises BadInput, DoesNotFit."""
    loaded = scenario if isinstance(scenario, ServeLoaded) else load_serving(scenario, overrides)
    every = []
    for number in range(seed, seed + loaded.scenario.seeds):
        tell(f"serving the requests of seed {number}")
        every.append(once(loaded, number))
    return _result(every)


def once(loaded: ServeLoaded, seed: int) -> Once:
    """One seed. Raises BadInput, DoesNotFit where nothing can be served."""
    with loaded.placing():
        pools = build_pools(loaded, seed) if loaded.scenario.pools else None
        parts = pools.parts if pools else (build_serving(loaded, seed),)
        built = parts[0]
        requests, notes = loaded.scenario.requests.draw(seed)
        if built.settings.prefix_cache and isinstance(requests.prefixes, Hashed):
            check_blocks(requests.prefixes.unit, built.settings.block_size)
        clocks = [part.clock() for part in parts]
        front = int(to_ps(built.settings.frontend_time))
        chosen = loaded.scenario.balancer
        scaling = [part.scenario.scaling() for part in parts]
        if pools:
            _check_answers(requests)
            links = pools.links()
            make = partial(pools.replicas, clocks=clocks)
            dies = pools.outages(loaded.scenario.faults)
            served = serve(
                requests, make, chosen, front, seed, links=links, entry=pools.entry, outages=dies, scaling=scaling,
                stages=built.before,
            )  # fmt: skip
        else:
            served = serve(
                requests, lambda book: built.replicas(book, clocks[0]), chosen, front, seed,
                outages=built.outages, scaling=scaling, stages=built.before,
            )  # fmt: skip
        _check_any(built, served)
        check_answered(served)
        since, found = _warm_up(loaded, served)
        which = counted(served.book, since)
        if len(which) < max(FEWEST_COUNTED * len(requests), 1):
            raise DoesNotFit(
                f"the warm-up leaves {len(which)} of {len(requests)} requests", where="requests.warmup",
                way_out="a shorter warm-up, or more requests",
            )  # fmt: skip
    measured = numbers(served, since, loaded.scenario.slo.limits) | _held(parts)
    if prices := loaded.scenario.prices:
        measured |= costs(prices, _paid(parts, served, since), measured)
        found = (*found, PAID)
    said = (*_drafts(parts), *_rejected(served), *fleet_notes(served), *cache_notes(served), *_growth(served, since))
    every = (*notes, *found, *said, *order_notes(parts, requests))
    return Once(
        seed, parts, served, since, measured, breakdown(served, since, front), every,
        tuple(_lookups(clock) for clock in clocks), pools, loaded.scenario.digest,
    )  # fmt: skip


def _held(parts: Sequence[ServeBuilt]) -> Numbers:
    """Bytes of the fullest GPU of the replicas, row by row, or of each pool's; and of each stage's own."""
    leads = [""] if len(parts) == 1 else [f"{role}_" for role in ROLES]
    rows = {
        f"{lead}memory.{row}": (size, "B")
        for lead, part in zip(leads, parts, strict=True) for row, size in memory_rows(part.memory.ledger)
    }  # fmt: skip
    own = {one.stage.name: sum(row.bytes for row in one.rows) for one in parts[0].stages if one.gpus}
    return rows | {f"stage_{name}_memory_bytes": (float(size), "B") for name, size in own.items()}


def _paid(parts: Sequence[ServeBuilt], served: Served, since: int) -> list[float]:
    """GPU-seconds of the counted time, of each pool; stages before belong to the first."""
    begin, end = window(served.book, counted(served.book, since), since)
    seconds = float(from_ps(end - begin))
    paid = [_gpus(part) * seconds for part in parts]
    if fleet := served.fleet:
        each = [float(from_ps(fleet.paid(begin, end, pool))) for pool in fleet.pools]
        paid = [part.plan.layout.world * replicas for part, replicas in zip(parts, each, strict=True)]
    return [paid[0] + stage_gpus(parts[0].stages) * seconds, *paid[1:]]


def _gpus(part: ServeBuilt) -> int:
    """Of all its replicas."""
    return part.scenario.most_replicas * part.plan.layout.world


def _lookups(pace: Pace) -> dict[str, float]:
    counts = pace.counted
    return {"steps": counts.steps, "lookups": counts.lookups, "mean_correction": counts.mean_correction}


def _check_answers(requests: Requests) -> None:
    """Raises BadInput where the pool that answers has nothing to do."""
    if int(requests.output.max()) == 1:
        raise BadInput(
            "never receives a request: every answer is one token, which comes with the prompt", where="pools.decode",
            way_out="answers of 2 tokens or more, or no pools",
        )  # fmt: skip


def _check_any(built: ServeBuilt, served: Served) -> None:
    """Raises DoesNotFit where every request was refused."""
    if len(served.rejected) == len(served.book.requests):
        room = built.memory.blocks * built.memory.block_size
        held = ", ".join(f"{row.item} {row.bytes / 1e9:.4g} GB" for row in built.memory.ledger.rows)
        raise DoesNotFit(
            f"no request can be served, the first has {next(iter(served.rejected.values()))} ({held}; {room} tokens)",
            where="requests",
            way_out="shorter requests, more GPUs to a replica, a larger token budget, or more num_gpu_blocks_override "
            "where it is set",
        )  # fmt: skip


def _warm_up(loaded: ServeLoaded, served: Served) -> tuple[int, tuple[str, ...]]:
    """ps from which requests count, and what there is to say about it."""
    asked = loaded.scenario.requests.warmup
    if asked != "auto":
        return int(to_ps(asked)), ()
    book = served.book
    which = counted(book, 0)
    which = which[np.argsort(book.sent[which], kind="stable")]
    first = transient(e2el(book, which))
    return (
        (int(book.sent[which[first]]), (f"warm-up: MSER-5 leaves out the first {first} requests",))
        if first
        else (0, ())
    )


def _drafts(parts: Sequence[ServeBuilt]) -> tuple[str, ...]:
    """What is assumed of drafts, or that a rate acts on none."""
    if not any(part.settings.num_speculative_tokens for part in parts):
        given = any(part.settings.draft_acceptance_rate is not None for part in parts)
        return ("scheduler.draft_acceptance_rate acts on nothing: num_speculative_tokens is 0",) if given else ()
    return ("speculation: attention is priced as of so many requests as there are tokens to check, a draft module as "
            "layers like the model's, drafts are right independently: assumed",)  # fmt: skip


def _rejected(served: Served) -> tuple[str, ...]:
    if not served.rejected:
        return ()
    request, why = next(iter(served.rejected.items()))
    return (f"{len(served.rejected)} requests were rejected: they can never run, e.g. request {request}: {why}",)


def _growth(served: Served, since: int) -> tuple[str, ...]:
    """Said where latencies grow as long as requests come: averages then depend on how many there are."""
    book = served.book
    if book.requests.concurrency:
        return ()
    which = counted(book, since)
    which = which[np.argsort(book.sent[which], kind="stable")]
    ratio = grows(ttft(book, which))
    if ratio is None:
        return ()
    return (f"no steady state: the mean TTFT of the last third of requests is {ratio:.3g} times the middle third's; "
            "more come than are served, and every latency here depends on how many there are",)  # fmt: skip


def _result(every: Sequence[Once]) -> ServeResult:
    first = every[0]
    names = [name for name in first.numbers if all(name in one.numbers for one in every)]
    metrics = {name: _metric([one.numbers[name][0] for one in every], first.numbers[name][1]) for name in names}
    parts = {key: math.fsum(one.breakdown[key] for one in every) / len(every) for key in first.breakdown}
    notes = dict.fromkeys((*_pool_notes(first), *(note for one in every for note in one.notes)))
    return ServeResult(first.built.scenario.name, metrics, parts, _provenance(every), tuple(notes), first)


def _pool_notes(once: Once) -> Iterator[str]:
    """What building the pools, or the replicas, had to say."""
    for role, part in zip(ROLES, once.parts, strict=False):
        prices = price_notes(part.log, part.plan.ops.costs, part.plan.fabric.cluster.devices[0].name)
        yield from (f"{role}: {text}" if once.pools else text for text in (*part.warnings, *prices))
    yield from once.pools.notes if once.pools else ()
    yield from (note for stage in once.built.stages for note in stage.notes)
    if gpus := stage_gpus(once.built.stages):
        yield f"stages have {gpus} GPUs of their own, beside those of replicas; no link to them is modelled"


def _metric(values: Sequence[float], unit: str) -> Metric:
    """The mean over seeds, and Student's 95 % interval of it where there are two or more."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Metric(mean, unit)
    half = half_width(values)
    return Metric(mean, unit, mean - half, mean + half)


def _provenance(every: Sequence[Once]) -> dict[str, Any]:
    first = every[0]
    built, plan = first.built, first.built.plan
    return {
        "moesim": __version__,
        "kind": "serve",
        "scenario": built.scenario.name,
        "scenario_hash": first.digest,
        "seeds": [one.seed for one in every],
        "interval": f"{CONFIDENCE:.0%} of the mean over seeds" if len(every) > 1 else None,
        "model": plan.model.name,
        "topology": plan.fabric.cluster.name,
        "costs": plan.ops.costs.name,
        "routing": plan.routing.basis,
        **({"routing_renewed_every": built.scenario.renew} if plan.model.routed else {}),
        "preset": built.scenario.scheduler.preset,
        **_system(built, first.lookups[0]),
        "gpus": sum(map(_gpus, first.parts)) + stage_gpus(built.stages),
        **_stages(built.stages),
        "warmup_s": first.since / 1e12,
        "network": _network(first),
        "series": series(first.served),
        **_pooled(first),
    }


def _system(built: ServeBuilt, lookups: Mapping[str, float]) -> dict[str, Any]:
    """Of one pool's replicas, or all."""
    plan = built.plan
    return {
        "kernel_set": plan.ops.costs.kernels,
        "kernels": dict(sorted(built.log.kernels.items())),
        **_of_experts(built, lookups),
        **({} if plan.interference == 1.0 else {"compute_slowdown_beside_transfers": plan.interference}),
        "engine": built.settings.model_dump(mode="json"),
        "replicas": built.scenario.replicas,
        "kv_blocks": built.memory.blocks,
        **_behind(built),
        "kv_tokens": built.memory.blocks * built.memory.block_size,
        "memory": {row.item: row.bytes for row in built.memory.ledger.rows}
        | {"usable": built.memory.ledger.capacity[HBM]},
    }


def _stages(stages: Sequence[BuiltStage]) -> dict[str, Any]:
    """Where each runs, and what it holds there."""
    told = {
        one.stage.name: {
            "where": one.stage.where,
            "gpus": one.gpus,
            "memory": {row.item: row.bytes for row in one.rows},
        }
        for one in stages
    }
    return {"stages": told} if told else {}


def _behind(built: ServeBuilt) -> dict[str, int]:
    """KV blocks behind the HBM of a scheduler, and of all."""
    host = built.host
    named = {"swap_blocks": host.swap, "host_cache_blocks": host.cache, "kv_pool_blocks": host.pool} if host else {}
    return {name: blocks for name, blocks in named.items() if blocks}


def _of_experts(built: ServeBuilt, lookups: Mapping[str, float]) -> dict[str, Any]:
    if not built.plan.model.routed:
        return {}
    dispatch = built.plan.dispatch.algorithm.name
    return {"routing_lookups": dict(lookups), "placement": built.placement_source, "dispatch": dispatch}


def _network(once: Once) -> str:
    steps = "port loads; contention between steps' transfers is not modelled, "
    if not once.pools:
        return f"{steps}replicas do not share links"
    kv = "is there at once" if once.pools.instant else "shares links with KV, max-min fair, not with steps"
    return f"{steps}KV between pools {kv}"


def _pooled(once: Once) -> dict[str, Any]:
    """What each pool is, where there are two."""
    if not once.pools:
        return {}
    pairs = zip(ROLES, once.parts, once.lookups, once.pools.first, strict=True)
    return {
        "pools": {
            role: {"preset": part.scenario.scheduler.preset, "gpus_of_replica": part.plan.layout.world,
                   "first_gpus": list(first), **_system(part, lookups)}
            for role, part, lookups, first in pairs
        }
    }  # fmt: skip
