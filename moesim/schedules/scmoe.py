"""ScMoE: a shortcut feeds experts from the attention of their own layer, and their result joins a layer later.

Experts of one layer run behind the attention of the next; what they bring back is there before the attention of the one
after that. So a dispatch hides behind the shared expert and the next attention, a combine behind the next shared expert
and whatever follows it. Source: Cai et al., "Shortcut-connected Expert Parallelism for Accelerating Mixture-of-Experts"
(2024). A model has to be trained that way: in others the next layer needs what these experts say.
"""

from __future__ import annotations

from collections.abc import Sequence

from moesim.schedules.nodes import WHOLE, Verb
from moesim.schedules.order import Order
from moesim.schedules.schedule import Schedule


class ScMoE(Schedule):
    """One part; transfers run all through the layers."""

    name, shares_sms, carries = "scmoe", True, True
    notes = ("scmoe: as if the model had been trained with shortcut connections: another model than its weights are",)

    @property
    def overlaps(self) -> bool:
        """Attention of one layer runs beside the rows of the one before."""
        return True

    def layers(self, order: Order, moe: Sequence[bool]) -> None:
        """own: what the next layer follows in its own; late: combines that it follows as well; sent: the layer whose
        rows are on their way, and their dispatch.
        """
        own, late = order.ends[WHOLE], tuple[int, ...]()
        sent: tuple[int, int] | None = None
        for layer, routed in enumerate(moe):
            attention = order.add(Verb.ATTENTION, layer, WHOLE, [*own, *late], shares_sms=True)
            before, sent, late = sent, None, ()
            decided = self._decided(order, layer, attention) if routed else attention
            if routed and self.shared_beside:
                sent = (layer, order.add(Verb.DISPATCH, layer, WHOLE, [decided], shares_sms=True))
            if before:
                late = (self._experts(order, *before),)
            verb = Verb.SHARED if routed else Verb.MLP
            own = (order.add(verb, layer, WHOLE, [decided], shares_sms=True),)
            if routed and not self.shared_beside:
                sent = (layer, order.add(Verb.DISPATCH, layer, WHOLE, own, shares_sms=True))
        last = (self._experts(order, *sent),) if sent else ()
        order.ends[WHOLE] = (*own, *late, *last)

    def _decided(self, order: Order, layer: int, attention: int) -> int:
        router = order.add(Verb.ROUTER, layer, WHOLE, [attention], shares_sms=True)
        return order.add(Verb.GATHER, layer, WHOLE, [router])

    def _experts(self, order: Order, layer: int, dispatch: int) -> int:
        """Experts of a layer, and their results."""
        experts = order.add(Verb.EXPERTS, layer, WHOLE, [dispatch], shares_sms=True)
        return order.add(Verb.COMBINE, layer, WHOLE, [experts], shares_sms=True)
