"""DeepSeek's decoding: attention in two steps, five stages a layer, one half of the batch two stages behind the other.

A layer is prepare attention | its core, and the router | dispatch, and the shared expert | experts, and combine | wait
for what comes back. Decoding, the stages are uneven, so attention is cut in two: a dispatch hides behind the shared
expert and the other half's preparation, a combine behind the other half's core. Sources: DeepSeek-V3/R1 inference
system overview (open-infra-index, 2025-03-01), "5-stage pipeline"; sgl-project/sglang, `operations_strategy.py`, where
decoding runs a half two stages behind the other. Layers without experts have three stages and no transfer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from moesim.schedules.nodes import Part, Verb
from moesim.schedules.order import Order
from moesim.schedules.schedule import Schedule

BEHIND = 2  # stages


class Stage(Protocol):
    """Adds a stage's nodes of one part."""

    def __call__(self, order: Order, part: Part) -> None:
        """Behind all others."""


class FiveStage(Schedule):
    """For inference: attention in two steps has no backward pass."""

    name, cuts, shares_sms = "five_stage", 2, True

    def layers(self, order: Order, moe: Sequence[bool]) -> None:
        """Stage after stage, in turns."""
        stages = [*self._stages(moe)]
        for turn in range(len(stages) + BEHIND * (self.cuts - 1)):
            for part in self.parts:
                if 0 <= turn - BEHIND * part.number < len(stages):
                    stages[turn - BEHIND * part.number](order, part)

    def _stages(self, moe: Sequence[bool]) -> Iterator[Stage]:
        for layer, routed in enumerate(moe):
            yield partial(self._one, layer=layer, verb=Verb.ATTENTION_PREPARE)
            yield partial(self._core, layer=layer, routed=routed)
            if routed:
                yield partial(self._send, layer=layer)
                yield partial(self._compute, layer=layer)
                yield _wait
            else:
                yield partial(self._one, layer=layer, verb=Verb.MLP)

    def _one(self, order: Order, part: Part, *, layer: int, verb: Verb) -> None:
        order.then(verb, layer, part, shares_sms=True)

    def _core(self, order: Order, part: Part, *, layer: int, routed: bool) -> None:
        order.then(Verb.ATTENTION_CORE, layer, part, shares_sms=True)
        if routed:
            order.then(Verb.ROUTER, layer, part, shares_sms=True)

    def _send(self, order: Order, part: Part, *, layer: int) -> None:
        order.then(Verb.GATHER, layer, part)
        if not self.shared_beside:
            order.then(Verb.SHARED, layer, part, shares_sms=True)
        order.then(Verb.DISPATCH, layer, part, shares_sms=True)
        if self.shared_beside:
            order.beside(Verb.SHARED, layer, part, shares_sms=True)

    def _compute(self, order: Order, part: Part, *, layer: int) -> None:
        order.then(Verb.EXPERTS, layer, part, shares_sms=True)
        order.then(Verb.COMBINE, layer, part, shares_sms=True)


def _wait(order: Order, part: Part) -> None:
    """The other half computes meanwhile."""
