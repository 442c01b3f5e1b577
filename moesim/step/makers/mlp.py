"""The FFN of a dense layer, spread over its tensor group."""

from __future__ import annotations

from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX


def forward(chain: Chain) -> None:
    """With its norm; nothing where the layer has no FFN."""
    if chain.node.layer in chain.plan.model.bare_layers:
        return
    chain.gather_tokens()
    chain.priced("mlp")
    chain.sum_tokens()


def backward(chain: Chain) -> None:
    """Its gradients."""
    if chain.node.layer in chain.plan.model.bare_layers:
        return
    way = chain.node.way
    plan = chain.plan
    work = plan.ops.backward("gemm", chain.site.price("mlp", chain.node), way)
    work += plan.ops.added_up(len(chain.site.ranks), plan.ops.spread.dense_gemms(), way, plan.gradient_bytes)
    if way == Way.BACKWARD_WEIGHT:
        chain.compute("mlp" + SUFFIX[way], work)
        return
    chain.gather_tokens()
    chain.gather_again()
    chain.compute("mlp" + SUFFIX[way], work)
    chain.sum_tokens()
