"""One GPU, then k experts on it (switch and mixture).

Source: Towards More Effective and Economic Sparsely-Activated Model; Hetu's SAMGate as code read.
"""

from __future__ import annotations

from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import group_sums, masked, pick, rows_of_table, softmax, top_k


class Sam(Router):
    """p = softmax over all experts; the GPU whose experts add up to most; top-k of p inside it; weights p.

    Groups are the GPUs of the expert-parallel group. A GPU with fewer than k experts gives that many rows.
    """

    k: Count | None = Field(None, description="experts of a token; default: the model's")

    @property
    def facts(self) -> Facts:
        """One destination a token."""
        return Facts(merges=True)

    def route(self, given: RouterInput) -> Assignment:
        """Up to k rows a token, all on one GPU."""
        p = softmax(given.logits)
        best = top_k(given, group_sums(p, given.expert_rank, len(given.rank_node)), 1)
        ids = top_k(given, masked(p, given.expert_rank == best), self.k or given.top_k)
        return rows_of_table(given, ids, pick(p, ids))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, and the sums over the experts of each GPU."""
        return gate(given) + passes(given, 1)
