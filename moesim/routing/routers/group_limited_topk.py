"""The best groups first, then top-k inside them.

Source: DeepSeek-V2 (arXiv 2405.04434, 2.1.3: a group's best expert) and V3 (2412.19437, 2.1.2: its best two).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import best_groups, chosen_weights, masked, rows_of_table, sigmoid, top_k


class GroupLimitedTopk(Router):
    """Experts in `groups` equal groups; the best `topk_groups` by the sum of their two best scores; top-k inside.

    Without `groups` those of the model, else one a node. Weights: sigmoid scores, normalised.
    """

    groups: Count | None = Field(None, description="equal groups of experts; default: the model's, else nodes")
    topk_groups: Count | None = Field(None, description="groups of a token; default: the model's, else half of them")
    k: Count | None = Field(None, description="experts of a token; default: the model's")
    by: Literal["top2", "max"] = Field("top2", description="a group's score: sum of its two best, or its best")

    @property
    def facts(self) -> Facts:
        """Bounds the nodes of a token where groups are nodes."""
        return Facts()

    def route(self, given: RouterInput) -> Assignment:
        """k rows a token. Raises BadInput where experts do not divide into groups."""
        nodes = len(set(given.rank_node.tolist()))
        groups = self.groups or (given.groups if given.groups > 1 else nodes)
        kept = self.topk_groups or (given.topk_groups if given.groups == groups else -(-groups // 2))
        if given.experts % groups:
            raise BadInput(f"{given.experts} experts do not divide into {groups} groups", where="group_limited_topk")
        inside = best_groups(given, sigmoid(given.logits), groups, kept, 2 if self.by == "top2" else 1)
        ids = top_k(given, masked(given.logits, inside), self.k or given.top_k)
        return rows_of_table(given, ids, chosen_weights(given.logits, ids, "sigmoid"))
