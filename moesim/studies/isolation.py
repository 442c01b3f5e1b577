"""Isolation: does the content of other requests in a batch change what happens to one's own?

The same requests are routed twice, once among the scenario's other requests and once among different ones of equal
sizes. Source: "Buffer Overflow in Mixture of Experts" (arXiv 2402.05526) for the question; the answer is by trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.routing import NO_EXPERT, Routed
from moesim.routing.routers import Status
from moesim.step import Batch, lower
from moesim.studies.build import Built, build
from moesim.studies.load import Loaded

OTHERS = 1 << 38  # requests from here on are in no step
EVERY = 8  # one request in so many is watched
TRIALS = 3
Fates = dict[tuple[int, int], tuple[list[int], list[int]]]  # (request, position) -> (chosen experts, dropped ones)


@dataclass
class Change:
    """How many (token, layer) of the watched requests changed, and the first one that did."""

    changed: int = 0
    asked: int = 0
    example: str = ""

    def note(self, before: list[int], after: list[int], where: str, what: str) -> None:
        """Compare one token in one layer."""
        self.asked += 1
        if before != after:
            self.changed += 1
            self.example = self.example or f"{where}: {what} {before} become {after}"

    @property
    def share(self) -> float:
        """Of (token, layer)."""
        return self.changed / max(self.asked, 1)


@dataclass
class Isolation:
    """The verdict on a scenario: chosen experts, drops, and seconds of the step with each set of companions."""

    name: str
    routing: str
    promise: str
    experts: Change = field(default_factory=Change)
    drops: Change = field(default_factory=Change)
    seconds: list[float] = field(default_factory=list)

    @property
    def isolated(self) -> bool:
        """Whether no trial changed the experts or drops of a watched token."""
        return not (self.experts.changed or self.drops.changed)

    @property
    def spread(self) -> float:
        """The largest step time over the smallest, minus one."""
        return max(self.seconds) / min(self.seconds) - 1

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {
            "verdict": "isolated" if self.isolated else "not isolated",
            "metrics": {
                "changed_experts": {"value": self.experts.share, "unit": "1"},
                "changed_drops": {"value": self.drops.share, "unit": "1"},
                "step_time_spread": {"value": self.spread, "unit": "1"},
            },
            "examples": {"experts": self.experts.example, "drops": self.drops.example},
            "step_times_s": list(self.seconds),
            "provenance": {"scenario": self.name, "routing_source": self.routing, "promise": self.promise},
        }


def isolation(loaded: Loaded, seed: int) -> Isolation:
    """Try it on a scenario's first batch. Raises BadInput, also where nobody shares the batch."""
    built = build(loaded, seed)
    batch = built.batches[0]
    watched = np.arange(len(batch.request)) % EVERY == EVERY - 1
    if not watched.any():
        raise BadInput(f"{len(batch.request)} request(s) in the batch", where="batch", way_out=f"at least {EVERY}")
    found = Isolation(built.scenario.name, built.plan.routing.name, _promise(built), seconds=[_seconds(built, batch)])
    layers, mine = range(len(built.model.moe_layers)), batch.request[watched]
    before = [_fates(built, batch, mine, layer) for layer in layers]
    for trial in range(1, TRIALS + 1):
        other = replace(batch, request=np.where(watched, batch.request, batch.request + trial * OTHERS))
        for layer in layers:
            _compare(found, layer, before[layer], _fates(built, other, mine, layer))
        found.seconds.append(_seconds(built, other))
    return found


def _promise(built: Built) -> str:
    """What the source's facts say, which the trial may prove wrong."""
    source = built.plan.routing
    depends = isinstance(source, Routed) and source.router.facts.batch_dependent
    return "rows depend on the batch" if depends else "each token by itself"


def _seconds(built: Built, batch: Batch) -> float:
    """Of the whole step, coflows by port loads."""
    graph = lower(built.plan, (batch,)).graph
    return evaluate(graph, built.plan.fabric.capacity, speed=built.plan.speed(graph)).step_seconds


def _compare(found: Isolation, layer: int, before: Fates, after: Fates) -> None:
    for (request, position), (chosen, dropped) in before.items():
        where = f"request {request}, position {position}, expert layer {layer}"
        found.experts.note(chosen, after[request, position][0], where, "experts")
        found.drops.note(dropped, after[request, position][1], where, "dropped experts")


def _fates(built: Built, batch: Batch, watched: npt.NDArray[np.int64], layer: int) -> Fates:
    """What becomes of each watched token in one layer; islands are routed apart, as in a step."""
    fates: Fates = {}
    for group in built.plan.layout.islands():
        for part in batch.on_ranks(group).split(built.plan.schedule.most_cuts):
            fates.update(_of_part(built, part, watched, layer))
    return fates


def _of_part(built: Built, batch: Batch, watched: npt.NDArray[np.int64], layer: int) -> Fates:
    """Chosen experts are those that the token would have, dropped or not."""
    token, expert, dropped = _rows(built, batch, layer)
    request, position = batch.token_request, batch.token_position
    mine = np.isin(request, watched)
    fates: Fates = {who: ([], []) for who in zip(request[mine].tolist(), position[mine].tolist(), strict=True)}
    rows = np.flatnonzero(mine[token])
    columns = (request[token[rows]], position[token[rows]], expert[rows], dropped[rows])
    for request_id, where, one, is_lost in zip(*(column.tolist() for column in columns), strict=True):
        chosen, lost = fates[request_id, where]
        chosen.append(one)
        if is_lost:
            lost.append(one)
    return fates


def _rows(built: Built, batch: Batch, layer: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """(token of the batch, expert, dropped or not) of every row."""
    source = built.plan.routing
    who = (batch.token_request, batch.token_position)
    if isinstance(source, Routed):
        found = source.assignment(layer, *who, batch.token_rank)
        return found.owner[found.token], found.expert, found.status == Status.DROPPED
    table = source.experts(layer, *who)
    token, choice = np.nonzero(table != NO_EXPERT)
    return token, table[token, choice], np.zeros(len(token), dtype=bool)


def words(document: Mapping[str, Any]) -> list[str]:
    """The verdict in sentences, with an example of each change."""
    metrics, examples = document["metrics"], document["examples"]
    first, *others = document["step_times_s"]
    routing = document["provenance"]["routing_source"]
    lines = [f"{routing}: {document['verdict']} ({document['provenance']['promise']}, say its facts)"]
    for kind in ("experts", "drops"):
        share = metrics[f"changed_{kind}"]["value"]
        change = f"change for {share:.2%} of watched token-layers, e.g. {examples[kind]}" if share else "never change"
        lines.append(f"{kind}: {change}")
    times = ", ".join(f"{one * 1e3:.4g}" for one in others)
    shared = "requests of a batch always share its time"
    lines.append(f"latency: a step of {first * 1e3:.4g} ms takes {times} ms with other companions; {shared}")
    return lines
