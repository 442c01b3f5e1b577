"""Fewer experts at inference: a token's first choices, or a pruned set.

Source: Faster MoE LLM Inference for Extremely Large Models; expert pruning papers (abstracts).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Inner, Router, inherit
from moesim.routing.routers.select import Mask, masked, take
from moesim.routing.routers.topk_softmax import TopkSoftmax
from moesim.yamlfile import Items


class ReduceKOrE(Router):
    """Keep the first `na` choices; and/or remove the experts `pruned` (ids, or a share drawn per layer): logits choose
    anew among the others, recorded rows of pruned experts are dropped. `renorm` makes a token's weights add up to one.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router whose rows are changed")
    na: Count | None = Field(None, description="first choices that are kept; null: all")
    pruned: Annotated[float, Field(ge=0, lt=1)] | Items[int] = Field(
        0.0, description="experts that are gone: their ids, or a share drawn per layer"
    )
    renorm: bool = Field(True, description="weights of a token add up to one again")

    @property
    def facts(self) -> Facts:
        """As the inner router's."""
        return inherit(self.inner)

    def route(self, given: RouterInput) -> Assignment:
        """At most na rows a token. Raises BadInput where all experts are pruned."""
        kept = self._kept(given)
        if not kept.any():
            raise BadInput("all experts are pruned", where="reduce_k_or_E.pruned")
        if "logits" in self.inner.facts.needs and not kept.all():
            given = given.with_logits(masked(given.logits, kept[None]))
        found = self.inner.route(given)
        if self.na is not None:
            found = take(found, found.choice < self.na)
        real = found.expert < found.experts
        gone = real & ~kept[np.where(real, found.expert, 0) % given.experts]
        found = found.with_status(np.where(gone, Status.DROPPED, found.status))
        return self._renormalised(found) if self.renorm else found

    def _kept(self, given: RouterInput) -> Mask:
        kept: Mask = np.ones(given.experts, dtype=bool)
        if isinstance(self.pruned, float):
            number = round(self.pruned * given.experts)
            kept[given.generator("pruned", given.layer).permutation(given.experts)[:number]] = False
        else:
            kept[[e for e in self.pruned if 0 <= e < given.experts]] = False
        return kept

    def _renormalised(self, found: Assignment) -> Assignment:
        total = np.bincount(found.token, np.where(found.moves, found.weight, 0), minlength=found.units)
        weight = np.where(found.moves, found.weight / np.maximum(total[found.token], 1e-30), found.weight)
        return found.with_rows(weight=weight.astype(np.float32))
