"""All experts where the Tsallis entropy is high, else top-p.

Source: DynMoLE: Mixture of LoRA Experts with a Hybrid Routing Mechanism (abstract; order of rules recalled).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, passes, sort
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Router
from moesim.routing.routers.select import at_least, entropy, prefix, rows_of_mask, softmax, weights_within


class EntropyTsallisDynmole(Router):
    """S_q(p) = (1 - sum p^q) / (q - 1), Shannon's at q = 1. Above `h` all experts, else top-p with at least `kmin`;
    weights renormalised.
    """

    q: float = Field(1.1, gt=0, le=10, description="of Tsallis' entropy; 1: Shannon's")
    h: float | None = Field(None, ge=0, description="default: 0.95 of the entropy of even probabilities")
    p: Fraction = Field(0.75, description="below h: experts until their probabilities exceed p")
    kmin: Count = Field(2, description="least experts of a token")

    @property
    def facts(self) -> Facts:
        """Variable k, up to all."""
        return Facts()

    def route(self, given: RouterInput) -> Assignment:
        """kmin to E rows a token."""
        p = softmax(given.logits)
        few = prefix(given, p, self.p) | at_least(given, p, 2.0, self.kmin, self.kmin)
        mask = few | (self.tsallis(p) > self._limit(given.experts))[:, None]
        return rows_of_mask(given, mask, weights_within(p, mask))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate, the entropy, and a sort for top-p."""
        return gate(given) + passes(given, 1) + sort(given)

    def tsallis(self, p: Floats) -> Floats:
        """[T, E] -> [T]."""
        if self.q == 1:
            return entropy(p)
        found: Floats = (1 - (p**self.q).sum(axis=1)) / (self.q - 1)
        return found

    def _limit(self, experts: int) -> float:
        even = np.full((1, experts), 1 / experts, dtype=np.float32)
        return 0.95 * float(self.tsallis(even)[0]) if self.h is None else self.h
