"""Merge the experts' weights for each example, then run one FFN.

Source: SMEAR, Soft Merging of Experts with Adaptive Routing (abstract).
"""

from __future__ import annotations

import numpy as np

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import rows_of_table, softmax


class Smear(Router):
    """w = softmax(mean l of the example), theta = sum w_e theta_e, one FFN of the merged weights where the token is.

    The row stands for that FFN, at the first expert of the token's own rank: no all-to-all. `extra` counts the merged
    sets: each reads all E experts' weights.
    """

    @property
    def facts(self) -> Facts:
        """Where the FFN runs needs no logits; its weights move with later tokens of the example."""
        stand_in = "merged weights have no place of their own; their merging is counted, not priced"
        return Facts(needs=frozenset(), causal=False, prefetch="before the model", stand_in=stand_in)

    def route(self, given: RouterInput) -> Assignment:
        """One local row a token."""
        ranks = len(given.rank_node)
        local = np.searchsorted(np.sort(given.expert_rank), np.arange(ranks))
        here = np.argsort(given.expert_rank, kind="stable")[np.minimum(local, given.experts - 1)]
        found = rows_of_table(given, here[given.rank][:, None], np.ones((given.tokens, 1), dtype=np.float32))
        return found.with_extra(merged_experts=float(len(np.unique(given.request)) * given.experts))

    def merged(self, given: RouterInput) -> Floats:
        """float32[examples, E]: w, in the order of request ids."""
        requests, which = np.unique(given.request, return_inverse=True)
        total = np.zeros((len(requests), given.experts))
        np.add.at(total, which, given.logits)
        return softmax(total / np.bincount(which)[:, None]).astype(np.float32)
