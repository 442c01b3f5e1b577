"""Passes over a cache of experts: one link that fetches in turn, slots for each layer, and a clock.

A layer starts when its router has run. Experts that are not there are fetched first of all; what was fetched ahead and
has not begun waits. The layer computes when all it needs has arrived. An expert for which no slot can be freed is
fetched and not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from moesim.errors import BadInput
from moesim.routing.offload.evict import EVICTION, Floats
from moesim.routing.offload.passes import Passes
from moesim.routing.offload.predict import Asked, Predictor


@dataclass(frozen=True)
class Machine:
    """slots: experts that each layer can hold; fetch and compute: seconds of an expert on the link, and of a layer."""

    slots: Sequence[int]
    fetch: float
    compute: float


@dataclass
class Played:
    """needed, hits: experts over all passes and layers, and those that were there; late: those under way; named,
    right: experts that were predicted, and needed; fetched, ahead: transfers, and those that were not asked for yet;
    stall, time: seconds; longest: of a pass.
    """

    needed: int = 0
    hits: int = 0
    late: int = 0
    named: int = 0
    right: int = 0
    fetched: int = 0
    ahead: int = 0
    stall: float = 0.0
    time: float = 0.0
    longest: float = 0.0


def spread_slots(layers: int, experts: int, slots: int, whole: int) -> list[int]:
    """`slots` a layer on the average, of which the first `whole` layers hold all their experts. Raises BadInput."""
    left = slots * layers - whole * experts
    if not 0 <= whole <= layers or left < (layers - whole):
        most = max((slots - 1) * layers // max(experts - 1, 1), 0)
        raise BadInput(
            f"{slots} slots a layer are {slots * layers} in all: too few for {whole} whole layers of {experts} experts "
            "and one slot in each other",
            where="--shallow", way_out=f"--shallow {min(most, layers)}, or more --slots",
        )  # fmt: skip
    rest = layers - whole
    return [experts] * whole + [left // rest + (number < left % rest) for number in range(rest)]


class _Ahead(NamedTuple):
    """An expert to be fetched before it is asked for, and since when that is known."""

    layer: int
    expert: int
    since: float


@dataclass
class _Run:
    """The state while passes are played. worth: of each layer float32[P, E]; there: of each layer, resident expert ->
    when it has arrived; named: of each layer, what it is expected to need; queue: what of that is to be fetched ahead,
    in order; free: when the link is; asked: when the last router had run.
    """

    passes: Passes
    machine: Machine
    worth: Sequence[Floats]
    there: list[dict[int, float]]
    found: Played = field(default_factory=Played)
    named: dict[int, frozenset[int]] = field(default_factory=dict)
    queue: list[_Ahead] = field(default_factory=list)
    now: float = 0.0
    free: float = 0.0
    asked: float = 0.0
    at: int = 0

    def layer(self, layer: int) -> None:
        """Wait for what the layer needs, then compute."""
        self._fetch_ahead()
        self.asked = arrived = self.now
        need = np.flatnonzero(self.passes.used[self.at, layer]).tolist()
        held = self.there[layer]
        self.queue = [one for one in self.queue if one.layer != layer]
        self.found.needed += len(need)
        for expert in need:
            if expert in held:
                self.found.hits += held[expert] <= self.now
                self.found.late += held[expert] > self.now
                arrived = max(arrived, held[expert])
            else:
                room = self._room(layer, frozenset(need))
                arrived = max(arrived, self._fetch(layer, expert, self.now, kept=room))
        self.found.stall += arrived - self.now
        self.now = arrived + self.machine.compute

    def expect(self, layer: int, experts: Sequence[int]) -> None:
        """Fetch these when the link has nothing else to do."""
        self.found.named += len(experts)
        self.found.right += int(self.passes.used[self.at, layer, list(experts)].sum())
        self.named[layer] = frozenset(experts)
        missing = [expert for expert in experts if expert not in self.there[layer]]
        self.queue += [_Ahead(layer, expert, self.asked) for expert in missing]

    def _fetch_ahead(self) -> None:
        """What of the queue has begun by now; what finds no slot is left out."""
        while self.queue and max(self.free, self.queue[0].since) < self.now:
            one = self.queue.pop(0)
            if one.expert not in self.there[one.layer] and self._room(one.layer, self.named[one.layer]):
                self._fetch(one.layer, one.expert, one.since, kept=True)
                self.found.ahead += 1

    def _fetch(self, layer: int, expert: int, since: float, *, kept: bool) -> float:
        """When it has arrived."""
        self.free = max(self.free, since) + self.machine.fetch
        self.found.fetched += 1
        if kept:
            self.there[layer][expert] = self.free
        return self.free

    def _room(self, layer: int, keep: frozenset[int]) -> bool:
        """A slot that is free, or is made so; but for those to keep and those under way. False where there is none."""
        held = self.there[layer]
        if len(held) < self.machine.slots[layer]:
            return True
        able = [expert for expert, arrived in held.items() if expert not in keep and arrived <= self.now]
        if not able:
            return False
        worth = self.worth[layer][self.at]
        del held[min(able, key=lambda expert: (float(worth[expert]), -expert))]
        return True


def play(passes: Passes, machine: Machine, eviction: str, predict: Predictor, distance: int) -> Played:
    """All passes, `distance` layers looked ahead -> what was there and what was waited for."""
    layers = passes.used.shape[1]
    worth = [EVICTION[eviction](passes.used[:, layer]) for layer in range(layers)]
    run = _Run(passes, machine, worth, [{} for _ in range(layers)])
    for at in range(len(passes.used)):
        run.at, begin, run.asked = at, run.now, run.now
        for layer in range(min(distance, layers)):
            run.expect(layer, predict(Asked(passes, at, layer, -1)).tolist())
        for layer in range(layers):
            run.layer(layer)
            if layer + distance < layers:
                run.expect(layer + distance, predict(Asked(passes, at, layer + distance, layer)).tolist())
        run.found.longest = max(run.found.longest, run.now - begin)
    run.found.time = run.now
    return run.found
