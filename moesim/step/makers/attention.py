"""Attention: in one, or prepared and attended to in two nodes; spread over its tensor group."""

from __future__ import annotations

from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX
from moesim.step.work import Work


def forward(chain: Chain) -> None:
    """All of it."""
    chain.gather_tokens()
    chain.priced("attention")
    chain.sum_tokens()


def prepare(chain: Chain) -> None:
    """Norm and projections of queries, keys and values."""
    chain.gather_tokens()
    chain.priced("attention_prepare")


def core(chain: Chain) -> None:
    """Core and output projection."""
    chain.priced("attention_core")
    chain.sum_tokens()


def backward(chain: Chain) -> None:
    """Its gradients; with Megatron's recomputed `core_attn` the core runs once more before them."""
    plan, way, stretch = chain.plan, chain.node.way, chain.plan.stretch(chain.node)
    gradients = chain.site.kept(
        ("attention_backward", way, stretch), chain.node,
        lambda: plan.ops.attention_backward(chain.batch, way).stretched(stretch),
    )  # fmt: skip
    if way == Way.BACKWARD_WEIGHT:
        chain.compute("attention" + SUFFIX[way], gradients)
        return
    again = chain.site.price("core", chain.node) if "core_attn" in plan.recompute else Work()
    chain.gather_tokens()
    chain.compute("attention" + SUFFIX[way], again + gradients)
    chain.sum_tokens()
