"""Rare tokens see one expert, frequent ones several.

Source: MaskMoE: Boosting Token-Level Learning via Routing Mask (abstract; counts recalled).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim import streams
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, passes
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.select import masked
from moesim.routing.routers.topk_softmax import TopkSoftmax


class VocabMask(Router):
    """l = -inf where M[id, e] = 0, then the inner router. Ids count down in frequency: those below `freq_cut` see
    `visible` experts, the others one; which ones is a hash of the id.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    freq_cut: int = Field(100, ge=0, description="ids below it are frequent")
    visible: Count = Field(8, description="experts that a frequent id sees")

    @property
    def facts(self) -> Facts:
        """A rare id's expert is known with the id, a frequent one's is one of few."""
        return inherit(self.inner, needs=self.inner.facts.needs | {"logits", "token_id"}, prefetch="partly by token id")

    def route(self, given: RouterInput) -> Assignment:
        """At most min(k, visible) rows a token."""
        ids = given.column("token_id").astype(np.int64)
        first = (streams.hash_ints(given.key("mask"), ids) % np.uint64(given.experts)).astype(np.int64)
        ahead = (np.arange(given.experts) - first[:, None]) % given.experts
        width = np.where(ids < self.freq_cut, self.visible, 1)[:, None]
        return self.inner.route(given.with_logits(masked(given.logits, ahead < width)))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Beside the inner router: the mask of each id read."""
        return self.inner.chores(given, found) + passes(given, 1)
