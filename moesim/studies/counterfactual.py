"""What if it were ideal? The same step with one cause of its time taken away, and with two, each played.

A part of the breakdown is what a cause adds on top of those below it. Taken away alone it may save less (something else
hides behind it) or more; so every cause is taken away alone, and two together say how far they overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from moesim.engine import evaluate
from moesim.errors import MoesimError
from moesim.step import lower
from moesim.studies.build import build, with_rows
from moesim.studies.ladder import climb
from moesim.studies.load import Loaded, load_data

EVEN, INFINITE, ALONE, BESIDE = "even routing", "an infinite network", "no contention", "perfect overlap"
BOTH: Final = f"{EVEN} and {INFINITE}"


class Ideal(NamedTuple):
    """A cause that was taken away, and seconds of the step without it; refused: why it cannot be."""

    name: str
    seconds: float | None
    refused: str = ""


class Levels(NamedTuple):
    """Seconds of one step: as it is, by port loads, with no network, and its transfers with nothing to compute."""

    whole: float
    ports: float
    none: float
    transfers: float


def ideals(loaded: Loaded, seed: int) -> list[Ideal]:
    """Each cause alone, then the two that are largest for most steps together. Raises BadInput, DoesNotFit."""
    return list(_ideals(loaded, seed))


def levels(loaded: Loaded, seed: int) -> Levels:
    """Of a step, played four times. Raises BadInput, DoesNotFit, Deadlock."""
    with loaded.placing():
        built = build(loaded, seed)
        lowered = lower(built.plan, built.batches)
        built = with_rows(built, lowered)
    graph, capacity = lowered.graph, built.plan.fabric.capacity
    idle = replace(graph, lane_seconds=np.zeros_like(graph.lane_seconds))
    played = climb(built.plan, lowered, built.scenario.network, {}, built.faults)
    return Levels(
        played.step_seconds,
        evaluate(graph, capacity, network="port_load", speed=built.plan.speed(graph)).step_seconds,
        evaluate(graph, capacity, network="none").step_seconds,
        evaluate(idle, capacity, network="port_load").step_seconds,
    )


def _ideals(loaded: Loaded, seed: int) -> Iterator[Ideal]:
    real = levels(loaded, seed)
    yield Ideal(INFINITE, real.none)
    yield Ideal(BESIDE, max(real.none, real.transfers))  # no order of the same work ends before either
    if real.ports < real.whole:
        yield Ideal(ALONE, real.ports)
    if loaded.scenario.routing is None or loaded.scenario.routing.balanced:
        return
    even = ["routing={balanced: true}"]
    try:
        best = levels(load_data(deepcopy(loaded.document.data), loaded.document.source, even), seed)
    except MoesimError as error:
        yield Ideal(EVEN, None, str(error.what))
        return
    yield from (Ideal(EVEN, best.whole), Ideal(BOTH, best.none))
