"""A token's scores are mixed with those of like tokens before it.

Source: Improving Routing in Sparse Mixture of Experts with Graph of Tokens; GNN-MoE (abstracts).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Inner, Router, inherit
from moesim.routing.routers.select import softmax
from moesim.routing.routers.topk_softmax import TopkSoftmax


class SimilarityMix(Router):
    """L = (1 - a) L + a S L; row t of S is the softmax of l_t . l_s / sqrt(E) over the `neighbours` tokens before t
    in its request. A first token has none and stays.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    a: Fraction = Field(0.5, description="share of the neighbours' logits")
    neighbours: Count = Field(2, description="earlier tokens that are looked at")

    @property
    def facts(self) -> Facts:
        """Earlier tokens of the same request only, so stepping and batching agree."""
        return inherit(self.inner, stand_in="likeness is that of logits, not of hidden states")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        backs = range(1, min(self.neighbours, int(given.position.max(initial=0))) + 1)
        if not backs:
            return self.inner.route(given)
        places = [np.maximum(given.position - back, 0) for back in backs]
        before = np.stack([given.column("logits", position=place) for place in places], axis=1)
        likeness = np.einsum("te,tne->tn", given.logits, before) / np.sqrt(given.experts)
        exists = given.position[:, None] >= np.array(backs)
        some = exists[:, :1]
        weight = softmax(np.where(exists | ~some, np.where(exists, likeness, 0), -np.inf))
        mixed = (1 - self.a) * given.logits + self.a * np.einsum("tn,tne->te", weight, before)
        return self.inner.route(given.with_logits(np.where(some, mixed, given.logits)))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Beside the inner router: neighbours' scores read for their likeness and again for the mean."""
        return self.inner.chores(given, found) + passes(given, 2 * self.neighbours + 2)
