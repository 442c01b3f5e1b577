"""NoExperts: the routing of a model that has none."""

from __future__ import annotations

import numpy as np

from moesim.routing.sources.source import Experts, PerToken, Tokens


class NoExperts(PerToken):
    """No layer has experts, and no token a choice."""

    basis = name = "no experts"
    notes: tuple[str, ...] = ()
    moe_layers = num_experts = top_k = 0

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """request, position int64[T] -> uint16[T, 0]."""
        return np.empty((len(request), 0), dtype=np.uint16)
