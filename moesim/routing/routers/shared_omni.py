"""One router for a group of layers.

Source: Omni-Router: Sharing Routing Decisions in Sparse Mixture-of-Experts (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax


class SharedOmni(Router):
    """The logits of the first of each `group` of layers plus N(0, eps), which stands for hidden states that move on."""

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    group: Count = Field(4, description="layers that share a router")
    eps: float = Field(0.3, ge=0, le=100, description="how far later layers of a group differ")

    @property
    def facts(self) -> Facts:
        """The first layer of a group foretells the others, the better the smaller eps."""
        return inherit(self.inner, prefetch="layers ahead", stand_in="eps replaces the change of hidden states")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows."""
        first = given.layer - given.layer % self.group
        shared = given.logits if first == given.layer else given.column("logits", layer=first)
        moved = np.float32(self.eps) * given.normal("omni", given.experts) if first < given.layer else np.float32(0)
        return self.inner.route(given.with_logits(shared + moved))
