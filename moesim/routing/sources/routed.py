"""Routed: a router decides, from logits or from what else it needs, for the whole batch of a layer."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.routers import Assignment, Router, RouterInput, State, Status
from moesim.routing.routers.input import lacks
from moesim.routing.shape import RoutingShape
from moesim.routing.sources.columns import Columns
from moesim.routing.sources.source import Experts, Rows, Tokens

WARM_UP_TOKENS = 2048
WARM_UP_REQUEST = 1 << 39  # its requests are never those of a step
WARM_UP_LENGTH = 64


@dataclass(frozen=True)
class Places:
    """rank_node int64[R]: the node of each rank of an expert-parallel group; experts are spread over it in order, each
    over `ways` ranks that share its width.
    """

    rank_node: Tokens
    ways: int = 1

    def expert_rank(self, experts: int) -> Tokens:
        """int64[E]: the groups of GPUs that a router is built for; a placement may move replicas elsewhere."""
        holders = len(self.rank_node) // self.ways
        return np.arange(experts, dtype=np.int64) * holders // experts * self.ways


@dataclass
class Tally:
    """What a router has done in the layers that were asked for: sums over calls."""

    units: int = 0
    without: int = 0
    layers: int = 0
    violation: float = 0.0
    counted: int = 0
    chosen: int = 0
    dropped: int = 0
    extra: dict[str, float] = field(default_factory=dict)
    drops: dict[str, tuple[int, int]] = field(default_factory=dict)
    domains: list[tuple[float, float]] = field(default_factory=list)
    hottest: dict[int, list[float]] = field(default_factory=dict)

    def note(self, found: Assignment, given: RouterInput) -> None:
        """Add one layer's batch."""
        self._note_drops(found, given)
        if "domain" in given.columns:
            self._note_domains(found, given.column("domain"))
        self.units += found.units - found.count(Status.PAD)
        self.counted += found.counted
        self.chosen += found.chosen
        self.dropped += found.count(Status.DROPPED)
        self.without += found.without_expert
        self.layers += 1
        self.violation += found.max_vio
        for name, work in found.extra.items():
            self.extra[name] = self.extra.get(name, 0.0) + work

    def _note_domains(self, found: Assignment, domain: Tokens) -> None:
        """How domains differ, and the hottest expert of each over the mean of its rows."""
        self.domains.append(by_domain(found, domain))
        moves = found.moves
        who, expert = domain[found.owner[found.token[moves]]], found.expert[moves]
        for one in np.unique(who).tolist():
            load = np.bincount(expert[who == one], minlength=found.experts)
            self.hottest.setdefault(one, []).append(float(load.max() / load.mean()))

    def _note_drops(self, found: Assignment, given: RouterInput) -> None:
        """Dropped and chosen rows of the later half of positions, and of the more important half of tokens."""
        if found.unit != "token" or not found.count(Status.DROPPED):
            return
        halves = {"late": given.position}
        if "importance" in given.columns:
            halves["important"] = given.column("importance")
        chosen = np.isin(found.status, (Status.KEPT, Status.DROPPED, Status.RECTIFIED))
        for name, values in halves.items():
            upper = (values > np.median(values))[found.owner[found.token]] & chosen
            lost = upper & (found.status == Status.DROPPED)
            before = self.drops.get(name, (0, 0))
            self.drops[name] = (before[0] + int(lost.sum()), before[1] + int(upper.sum()))

    def to_metrics(self) -> dict[str, float]:
        """Shares and means over the layers that were asked for."""
        return {
            "drop_rate": self.dropped / max(self.chosen, 1),
            "mean_k": self.counted / max(self.units, 1),
            "max_vio": self.violation / max(self.layers, 1),
            "tokens_without_expert": self.without / max(self.units, 1),
            **{f"drop_rate_{half}": lost / max(chosen, 1) for half, (lost, chosen) in self.drops.items()},
            **self._of_domains(),
        }

    def _of_domains(self) -> dict[str, float]:
        """Means over layers of what `by_domain` says."""
        if not self.domains:
            return {}
        spread, reached = np.mean(self.domains, axis=0)
        several = sorted(self.hottest.items()) if len(self.hottest) > 1 else ()
        loads = {f"load_by_domain.d{domain}": float(np.mean(each)) for domain, each in several}
        return {"domain_divergence_bits": float(spread), "experts_per_domain": float(reached), **loads}


def by_domain(found: Assignment, domain: Tokens) -> tuple[float, float]:
    """How far loads of domains int64[T] are apart, as their Jensen-Shannon divergence in bits (each weighs what it
    sends), and how many experts a domain reaches, on average.
    """
    moves = found.moves
    who = np.unique(domain[found.owner[found.token[moves]]], return_inverse=True)[1]
    rows = np.zeros((int(who.max(initial=0)) + 1, found.experts))
    np.add.at(rows, (who, found.expert[moves]), 1.0)
    weight = rows.sum(axis=1) / max(rows.sum(), 1.0)
    spread = _bits(rows.sum(axis=0)) - sum(w * _bits(one) for w, one in zip(weight, rows, strict=True))
    return float(max(spread, 0.0)), float((rows > 0).sum(axis=1).mean())


def _bits(rows: npt.NDArray[np.float64]) -> float:
    """Entropy of counts."""
    share = rows[rows > 0] / max(rows.sum(), 1.0)
    return float(-(share * np.log2(share)).sum())


class Routed:
    """A router over the columns of a trace or a generator. Raises BadInput where they lack what it needs.

    With `warm_up` steps, a router that learns has seen so many batches of other requests before; its state then holds
    for the whole step, so that a lookup stays a pure function of its arguments.
    """

    planned_on = "other tokens of the same load"

    def __init__(
        self, router: Router, name: str, columns: Columns, model: RoutingShape, seed: int, places: Places, warm_up: int,
        training: bool = True,
    ) -> None:  # fmt: skip
        for column in sorted(router.facts.needs - set(columns.lookups)):
            raise lacks(f"routing.router {name}", column)
        self.router, self.router_name = router, name
        self.name, self.basis = f"{name} over {columns.name}", columns.basis
        self.notes = (*columns.notes, *_notes(router, name, warm_up, training))
        self.training = training
        self.moe_layers, self.num_experts, self.top_k = len(model.moe_layers), model.num_experts, model.top_k
        self.tally = Tally()
        self._model, self._columns, self._seed, self._places, self._warm_up = model, columns, seed, places, warm_up
        self._states: dict[int, State | None] = {}

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """As in RoutingSource, with the tokens as one batch of one rank."""
        found = self._route(layer, request, position, np.zeros(len(request), dtype=np.int64))
        return found.table()[0]

    def rows(self, layer: int, request: Tokens, position: Tokens, rank: npt.NDArray[np.int32]) -> Rows:
        """As in RoutingSource."""
        given = self._asked(layer, request, position, rank.astype(np.int64))
        found = self.router.route(given)
        self.tally.note(found, given)
        table, unit = found.table()
        owner, where = found.owner[unit], found.rank[unit].astype(np.int32)
        return Rows(table, request[owner], position[owner], where, found.rounds, self.router.chores(given, found))

    def earlier(self) -> Self:
        """As in RoutingSource: what a router sees does not drift. What is asked there is not counted here."""
        other = copy(self)
        other.tally = Tally()
        return other

    def assignment(self, layer: int, request: Tokens, position: Tokens, rank: npt.NDArray[np.int32]) -> Assignment:
        """What became of every choice of a batch."""
        return self._route(layer, request, position, rank.astype(np.int64))

    def domain(self, request: Tokens, position: Tokens) -> Tokens:
        """int64[T]: the domain of each token, 0 where columns know none."""
        lookup = self._columns.lookups.get("domain")
        found = np.zeros(len(request)) if lookup is None else lookup(0, request, position)
        return found.astype(np.int64)

    def _route(self, layer: int, request: Tokens, position: Tokens, rank: Tokens) -> Assignment:
        return self.router.route(self._asked(layer, request, position, rank))

    def _asked(self, layer: int, request: Tokens, position: Tokens, rank: Tokens) -> RouterInput:
        return self._given(layer, request, position, rank, self._warm_up, self._state(layer), self.training)

    def _given(
        self, layer: int, request: Tokens, position: Tokens, rank: Tokens, step: int, state: State | None,
        training: bool = True,
    ) -> RouterInput:  # fmt: skip
        ranks = len(self._places.rank_node)
        if len(rank) and rank.max() >= ranks:
            raise BadInput(f"rank {rank.max()} of a group of {ranks}", where="routing.router")
        return RouterInput(
            experts=self.num_experts,
            top_k=self.top_k,
            request=request,
            position=position,
            rank=rank,
            columns=self._columns.lookups,
            expert_rank=self._places.expert_rank(self.num_experts),
            rank_node=self._places.rank_node,
            groups=self._model.num_groups,
            topk_groups=self._model.topk_groups,
            hidden=self._model.hidden_size,
            training=training,
            layer=layer,
            layers=self.moe_layers,
            step=step,
            seed=self._seed,
            state=state,
            source=self._columns.name,
        )

    def _state(self, layer: int) -> State | None:
        """What the router has learned in this layer from `warm_up` batches; kept once it is known."""
        if layer not in self._states:
            state: State | None = None
            number = np.arange(WARM_UP_TOKENS)
            rank = number * len(self._places.rank_node) // WARM_UP_TOKENS
            for step in range(self._warm_up):
                first = WARM_UP_REQUEST + step * (WARM_UP_TOKENS // WARM_UP_LENGTH)
                given = self._given(layer, first + number // WARM_UP_LENGTH, number % WARM_UP_LENGTH, rank, step, state)
                state = self.router.learn(given, self.router.route(given))
            self._states[layer] = state
        return self._states[layer]


def _notes(router: Router, name: str, warm_up: int, training: bool) -> tuple[str, ...]:
    facts = router.facts
    notes = [f"router {name}: only modelled, not trained: {facts.stand_in}"] if facts.stand_in else []
    notes += [f"router {name}: looks at later tokens, which no decoder can"] if not facts.causal else []
    untrained = facts.learns and not warm_up
    notes += [f"router {name}: learns, and has learned nothing yet (routing.warm_up: 0)"] if untrained else []
    idle = facts.training and not training
    notes += [f"router {name}: {facts.training} acts in training only, so not in this step"] if idle else []
    return tuple(notes)
