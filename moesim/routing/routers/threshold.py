"""Every expert whose probability reaches a threshold.

Source: the generic form of DA-MoE, LaDiMo and DynMoLE (abstracts).
"""

from __future__ import annotations

from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Router
from moesim.routing.routers.select import at_least, rows_of_mask, softmax, weights_within
from moesim.yamlfile import Items


class Threshold(Router):
    """Keep e with p_e >= tau, kmin at least and kmax at most; `tau` is one number or one a layer; weights
    renormalised.
    """

    tau: Fraction | Items[Fraction] = Field(0.05, description="least probability; one number, or one a layer")
    kmin: Count = Field(1, description="least experts of a token")
    kmax: Count = Field(8, description="most experts of a token")

    @property
    def facts(self) -> Facts:
        """Variable k."""
        return Facts()

    def route(self, given: RouterInput) -> Assignment:
        """kmin to kmax rows a token."""
        tau = self.tau if isinstance(self.tau, float) else self.tau[min(given.layer, len(self.tau) - 1)]
        p = softmax(given.logits)
        mask = at_least(given, p, tau, self.kmin, self.kmax)
        return rows_of_mask(given, mask, weights_within(p, mask))
