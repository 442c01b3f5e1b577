"""One decision for a whole prompt, segment or task.

Source: task-level MoE, Uni-Perceiver-MoE, SCOPE and others (abstracts).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax

CLASSES = 1 << 42  # requests from here on stand for a domain, not for a user


class ScopeStatic(Router):
    """The logits of a scope's first token decide for all its tokens and steps: a `request` (prompt, instance), a
    `segment` of it (sentence) of `length` tokens, or a `domain` (task, language, modality).
    """

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    scope: Literal["request", "segment", "domain"] = Field("request", description="what one decision holds for")
    length: Count = Field(32, description="tokens of a segment")

    @property
    def facts(self) -> Facts:
        """Known for all later tokens of the scope; a sub-network that can be fetched as a whole."""
        needs = self.inner.facts.needs | {"logits"} | ({"domain"} if self.scope == "domain" else set())
        ahead: dict[str, object] = {} if self.scope == "segment" else {"prefetch": "by request"}
        return inherit(self.inner, needs=needs, **ahead)

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, the same for all tokens of a scope."""
        keys = np.stack(self._keys(given))
        request, which = np.unique(keys, axis=1, return_inverse=True)
        logits = given.column("logits", request=request[0], position=request[1])
        return self.inner.route(given.with_logits(logits[which]))

    def _keys(self, given: RouterInput) -> tuple[Ints, Ints]:
        """(request, position) of the token that decides."""
        if self.scope == "domain":
            return CLASSES + given.column("domain").astype(np.int64), np.zeros_like(given.position)
        if self.scope == "segment":
            return given.request, given.position - given.position % self.length
        return given.request, np.zeros_like(given.position)
