"""The FFN of a dense layer, spread over its tensor group."""

from __future__ import annotations

from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX


def forward(chain: Chain) -> None:
    """With its norm."""
    chain.gather_tokens()
    chain.priced("mlp")
    chain.sum_tokens()


def backward(chain: Chain) -> None:
    """Its gradients."""
    way = chain.node.way
    work = chain.plan.ops.backward("gemm", chain.site.price("mlp", chain.node), way)
    if way == Way.BACKWARD_WEIGHT:
        chain.compute("mlp" + SUFFIX[way], work)
        return
    chain.gather_tokens()
    chain.compute("mlp" + SUFFIX[way], work)
    chain.sum_tokens()
