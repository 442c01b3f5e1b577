"""Which experts the tokens of a training job go to: looked up, or decided by a router that learns from step to step."""

from __future__ import annotations

from typing import Final

import numpy as np

from moesim.errors import BadInput
from moesim.routing import Routed, Sampled
from moesim.routing.sources import Places
from moesim.routing.sources.sequences import Sequences
from moesim.studies.routing import looked_up, routed_by
from moesim.studies.scenario import RoutingSection
from moesim.studies.training.load import TrainLoaded
from moesim.training import Job

SEQUENCES: Final = 64  # different ones of a job whose tokens are looked up
PROBE: Final = 8  # tokens of which it is seen what a router makes of them
MOST_STEPS: Final = 2000  # that a router may have learned from: each routes 2,048 tokens in every layer


def are_even(loaded: TrainLoaded, job: Job) -> bool:
    """Whether every expert gets equal rows."""
    routing = loaded.scenario.routing
    return routing is None or routing.balanced or not job.model.routed


def tokens_of(loaded: TrainLoaded, job: Job, step: int) -> Sequences:
    """At a step of a run: texts of its own, of a sampled load one that moves from look to look; or, by a router, the
    same texts, with what it has learned in so many steps beyond `routing.warm_up`. Raises BadInput.
    """
    routing, run = loaded.scenario.routing, loaded.scenario.run
    assert routing
    with loaded.placing("routing"):
        if routing.sampled:
            looks = step // run.routing_every if run and run.routing_every else 0
            return Sequences(Sampled(routing.sampled, job.model, 0).later(looks), SEQUENCES)
        if routing.router is None:
            return Sequences(looked_up(routing, job.model, step, loaded.where("routing.trace")), SEQUENCES)
        return Sequences(_router(loaded, job, routing, step), SEQUENCES)


def _router(loaded: TrainLoaded, job: Job, routing: RoutingSection, step: int) -> Routed:
    learned = routing.model_copy(update={"warm_up": routing.warm_up + step})
    if learned.warm_up > MOST_STEPS:
        what = f"a router that has learned from {learned.warm_up} steps; at most {MOST_STEPS} are played"
        raise BadInput(what, where="run.steps", way_out="fewer steps, or routing_every: as many as there are")
    places = Places(np.arange(job.layout.island, dtype=np.int64) // job.cluster.gpus_per_node)
    source = routed_by(loaded, learned, job.model, 0, places, training=True)
    facts, number = source.router.facts, np.arange(PROBE)
    found = source.assignment(0, 0 * number, number, np.zeros(PROBE, dtype=np.int32))
    if facts.batch_dependent or found.unit != "token" or found.rounds > 1:
        what = f"{source.router_name} decides by who else is in the batch, or by more than a row a token"
        raise BadInput(f"{what}: not played in pipelines", where=loaded.where("routing.router"),
                       way_out="e.g. topk_softmax (with training.capacity_factor), or mode: step")  # fmt: skip
    return source
