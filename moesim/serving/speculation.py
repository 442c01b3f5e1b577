"""Speculation: draft tokens of each request, checked by one step of the model, and what drafting takes.

A step has a row for the last token and each draft of a request: experts are read for all of them, and attention is
priced as of so many requests (as aiconfigurator does; kernels that read KV once for all of them take less). Drafts
after the first wrong one are lost. A draft module (multi-token prediction, EAGLE) goes over all tokens of the step
once, and over one of each request for every further draft.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim import streams
from moesim.serving.clock import Clock, Grows, stepped
from moesim.serving.requests import Ints
from moesim.serving.settings import Settings
from moesim.step import Batch, Phase, StepPlan
from moesim.units import to_ps

SALT = streams.key("serving", "speculation")


@dataclass(frozen=True)
class Speculation:
    """drafts: of each request and step; rate: of those whose drafts before are right, that are right, too."""

    drafts: int
    rate: float
    seed: int = 0

    @classmethod
    def of(cls, settings: Settings, seed: int) -> Speculation | None:
        """None where nothing is drafted."""
        if not settings.num_speculative_tokens:
            return None
        assert settings.draft_acceptance_rate is not None
        return cls(settings.num_speculative_tokens, settings.draft_acceptance_rate, seed)

    def right(self, request: Ints, emitted: Ints) -> Ints:
        """int64[n]: drafts that are right, of requests that have had so many tokens: by a hash, in whatever batch."""
        drawn = streams.hash_ints(SALT, self.seed, request, emitted) / 2.0**64
        right: Ints = (drawn[:, None] < self.rate ** np.arange(1, self.drafts + 1)).sum(axis=1)
        return right


@dataclass(frozen=True)
class Drafted:
    """A clock whose steps draft so many tokens, too: `share` of what the layers of the step take for each pass, and the
    head. fixed: ps of a step that no layer takes; head(batch): ps of its head.
    """

    clock: Clock
    drafts: int
    share: float
    fixed: int
    head: Callable[[Batch], int]

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        ticks = self.clock.ps(batch)
        last = self._last(batch)
        found = ticks + self._layers(ticks, batch)
        if not len(last.rank):
            return found
        found += self.drafts * self.head(last)
        return found + (self.drafts - 1) * self._layers(self.clock.ps(last), last) if self.drafts > 1 else found

    def _layers(self, ticks: int, batch: Batch) -> int:
        """What the draft module takes of a step of the model."""
        return round(max(ticks - self.fixed - self.head(batch), 0) * self.share)

    def _last(self, batch: Batch) -> Batch:
        """A decoded row of each request of which a token comes out."""
        rows = np.flatnonzero(batch.emits)
        rows = np.sort(rows[np.unique(batch.request[rows], return_index=True)[1]])
        one = np.ones(len(rows), dtype=np.int64)
        columns = batch.rank[rows], batch.request[rows], one, (batch.context + batch.query)[rows] - 1
        return Batch(batch.ranks, *columns, np.full(len(rows), Phase.DECODE, np.int8), one > 0)

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """See Clock."""
        return stepped(self, batch, grows, now, horizon, most, least)


def drafted(clock: Clock, settings: Settings, plan: StepPlan) -> Clock:
    """A plan's clock, with drafts where there are some whose making takes time."""
    if not settings.num_speculative_tokens or not settings.draft_layers:
        return clock
    known: dict[int, int] = {}

    def head(batch: Batch) -> int:
        """By the most tokens of a group that go through it."""
        rows = int(plan.ops.group_head_rows(batch).max(initial=0))
        if rows not in known:
            known[rows] = int(to_ps(np.max(plan.ops.head(batch).total))) if rows else 0
        return known[rows]

    share = settings.draft_layers / plan.model.num_layers
    return Drafted(clock, settings.num_speculative_tokens, share, int(to_ps(plan.host_seconds)), head)


def spread(columns: tuple[Any, ...], decodes: int) -> tuple[Any, ...]:
    """Columns request, query, context, phase, emits of a scheduler's rows, the first `decodes` of them with drafts ->
    with a row of its own for each of their tokens.
    """
    query = columns[1]
    times = np.where(np.arange(len(query)) < decodes, query, 1)
    first = np.repeat(np.cumsum(times) - times, times)
    request, query, context, phase, emits = (np.repeat(column, times) for column in columns)
    checked = np.repeat(np.arange(len(times)) < decodes, times)
    return request, np.where(checked, 1, query), context + np.arange(len(first)) - first, phase, emits
