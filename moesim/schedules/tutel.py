"""Tutel: only the stretch from dispatch to combine is cut, into as many parts as `overlap.degree` says.

Attention and router see the whole batch. Then all parts are sent, one after the other; each is computed when it has
landed and brought back while the next one computes, so transfers hide behind the experts alone. Source: Hwang et al.,
"Tutel: Adaptive Mixture-of-Experts at Scale" (2022), adaptive pipelining, whose degrees are 1, 2, 4 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence

from moesim.schedules.nodes import WHOLE, Part, Verb
from moesim.schedules.order import Order
from moesim.schedules.schedule import Schedule


class Tutel(Schedule):
    """Experts compute on the SMs that transfers leave them; nothing else runs beside any."""

    name, usual_degree = "tutel", 2

    def layers(self, order: Order, moe: Sequence[bool]) -> None:
        """Layer after layer."""
        for layer, routed in enumerate(moe):
            order.then(Verb.ATTENTION, layer, WHOLE)
            if routed:
                self._experts(order, layer)
            else:
                order.then(Verb.MLP, layer, WHOLE)

    def _experts(self, order: Order, layer: int) -> None:
        order.then(Verb.ROUTER, layer, WHOLE)
        decided = order.then(Verb.GATHER, layer, WHOLE)
        shared = order.add(Verb.SHARED, layer, WHOLE, [decided], shares_sms=self.shared_beside)
        before = decided if self.shared_beside else shared
        parts = [Part(number, self.degree) for number in range(self.degree)]
        sent = [order.add(Verb.DISPATCH, layer, part, [before], shares_sms=True) for part in parts]
        back = []
        for part, landing in zip(parts, sent, strict=True):
            computed = order.add(Verb.EXPERTS, layer, part, [landing], shares_sms=self.degree > 1)
            back.append(order.add(Verb.COMBINE, layer, part, [computed], shares_sms=True))
        order.ends[WHOLE] = (shared, *back)
