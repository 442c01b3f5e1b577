"""Experts compute slots, each a mix of all tokens.

Source: From Sparse to Soft Mixtures of Experts (Puigcerver et al., arXiv 2308.00951, section 2.1).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, mix, passes
from moesim.routing.routers.input import Floats, Ints, RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import softmax


class SoftMoe(Router):
    """D = softmax over the tokens of a sample of X Phi [n, E slots]: slot inputs D^T X; C = softmax over slots: y = C
    out.

    A sample is a request's tokens in the batch; its E x `slots` slots are sent from the rank of its first token.
    Slots beyond an expert's first have its logits plus N(0, 1).
    """

    slots: Count = Field(1, description="of an expert and sample")

    @property
    def facts(self) -> Facts:
        """Every token of a sample is in every slot; the load does not depend on content."""
        return Facts(needs=frozenset(), causal=False, prefetch="before the model")

    def route(self, given: RouterInput) -> Assignment:
        """One row a slot: slot s of expert e is unit (sample E + e) slots + s."""
        owner = self._samples(given)[0]
        experts, units = given.experts, len(owner) * given.experts * self.slots
        zeros = np.zeros(units, dtype=np.uint8)
        return Assignment(
            experts=experts,
            physical=experts,
            rank=np.repeat(given.rank[owner], experts * self.slots),
            owner=np.repeat(owner, experts * self.slots),
            token=np.arange(units),
            expert=np.tile(np.repeat(np.arange(experts), self.slots), len(owner)),
            weight=np.ones(units, dtype=np.float32),
            choice=zeros,
            round=zeros,
            status=zeros,
            unit="slot",
        )

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Scores over all slots with two softmaxes, and two dense mixes: D^T X and C out, T x slots x hidden each."""
        wide = given.experts * self.slots
        return (
            gate(given, wide) + passes(given, 2, wide) + mix(given, given.hidden, wide) + mix(given, wide, given.hidden)
        )

    def dense(self, given: RouterInput) -> tuple[Floats, Floats]:
        """(D, C) float32[T, E slots]: columns of D add up to one in each sample, rows of C to one."""
        first, which = self._samples(given)
        scores = self._scores(given)
        dispatch = np.empty_like(scores)
        for sample in range(len(first)):
            mine = which == sample
            dispatch[mine] = softmax(scores[mine], axis=0)
        return dispatch, softmax(scores)

    def _scores(self, given: RouterInput) -> Floats:
        more = [given.logits + given.normal(f"slot {n}", given.experts) for n in range(1, self.slots)]
        found: Floats = np.stack([given.logits, *more], axis=2).reshape(given.tokens, -1)
        return found

    def _samples(self, given: RouterInput) -> tuple[Ints, Ints]:
        """(first token of each sample, sample of each token)."""
        _, first, which = np.unique(given.request, return_index=True, return_inverse=True)
        return first.astype(np.int64), which
