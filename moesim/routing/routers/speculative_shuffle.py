"""Tokens start from the GPU where their experts are predicted to be.

Source: Speculative MoE: Speculative Token and Expert Pre-scheduling (public notes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim import streams
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, passes
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import Facts, Fraction, Inner, Router, inherit
from moesim.routing.routers.select import highest
from moesim.routing.routers.topk_softmax import TopkSoftmax


class SpeculativeShuffle(Router):
    """The source rank of a token is the predicted device: with chance `accuracy` the GPU that holds most of its
    experts, else any. The table over token ids and the two layers before is not built: only its accuracy counts here.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router whose rows are changed")
    accuracy: Fraction = Field(0.7, description="share of tokens whose GPU is predicted right")

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
        salt, who = given.key("home"), found.owner

        def tickets(rows: Ints) -> npt.NDArray[np.uint64]:
            token = who[rows]
            return streams.hash_ints(salt, given.request[token, None], given.position[token, None], np.arange(ranks))

        most = highest(held, 1, tickets)[:, 0]
        home = np.where(held.any(axis=1), most, found.rank)
        return replace(found, rank=np.where(hit, home, anywhere))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Beside the inner router: a look into the table of predicted GPUs for the id and two layers before."""
        return self.inner.chores(given, found) + passes(given, 4, 1)
