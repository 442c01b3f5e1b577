"""Merge the experts' weights for each example, then run one FFN.

Source: SMEAR, Soft Merging of Experts with Adaptive Routing (abstract).
"""

from __future__ import annotations

import numpy as np

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, of_rank
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import rows_of_table, softmax


class Smear(Router):
    """w = softmax(mean l of the example), theta = sum w_e theta_e, one FFN of the merged weights where the token is.

    The row stands for that FFN, at the first expert of the token's own rank: no all-to-all. Merging reads all E
    experts' weights for each example.
    """

    @property
    def facts(self) -> Facts:
        """Where the FFN runs needs no logits; its weights move with later tokens of the example."""
        stand_in = "merged weights have no place of their own, and every GPU is taken to hold all experts"
        return Facts(needs=frozenset(), causal=False, prefetch="before the model", stand_in=stand_in)

    def route(self, given: RouterInput) -> Assignment:
        """One local row a token."""
        ranks = len(given.rank_node)
        local = np.searchsorted(np.sort(given.expert_rank), np.arange(ranks))
        here = np.argsort(given.expert_rank, kind="stable")[np.minimum(local, given.experts - 1)]
        return rows_of_table(given, here[given.rank][:, None], np.ones((given.tokens, 1), dtype=np.float32))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, and for each example of a rank all E experts' weights read, one merged set written and read."""
        _, first = np.unique(given.request, return_index=True)
        return gate(given) + Chores(sets=(of_rank(given, given.rank[first]) * (given.experts + 2),))

    def merged(self, given: RouterInput) -> Floats:
        """float32[examples, E]: w, in the order of request ids."""
        requests, which = np.unique(given.request, return_inverse=True)
        total = np.zeros((len(requests), given.experts))
        np.add.at(total, which, given.logits)
        return softmax(total / np.bincount(which)[:, None]).astype(np.float32)
