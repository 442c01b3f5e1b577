"""Tokens start from the GPU where their experts are predicted to be.

Source: Speculative MoE: Speculative Token and Expert Pre-scheduling (public notes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Facts, Fraction, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax


class SpeculativeShuffle(Router):
    """The source rank of a token is the predicted device: with chance `accuracy` the GPU that holds most of its
    experts, else any. The table over token ids and the two layers before is not built: only its accuracy counts here.
    """

    inner: Inner = TopkSoftmax()
    accuracy: Fraction = 0.7

    @property
    def facts(self) -> Facts:
        """Experts stay as they are; bytes change."""
        return inherit(self.inner, stand_in="an accuracy replaces the trained table")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows from other source ranks."""
        found = self.inner.route(given)
        ranks = len(given.rank_node)
        rows = found.moves
        cell = found.token[rows] * ranks + given.expert_rank[found.expert[rows] % given.experts]
        held = np.bincount(cell, minlength=found.units * ranks).reshape(found.units, ranks)
        draw = given.uniform("shuffle")[found.owner]
        hit = draw < self.accuracy
        spare = np.where(hit, 0, (draw - self.accuracy) / max(1 - self.accuracy, 1e-12))
        anywhere = np.minimum((spare * ranks).astype(np.int64), ranks - 1)
        home = np.where(held.any(axis=1), held.argmax(axis=1), found.rank)
        return replace(found, rank=np.where(hit, home, anywhere))
