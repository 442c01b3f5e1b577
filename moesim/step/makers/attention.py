"""Attention: in one, or prepared and attended to in two nodes; spread over its tensor group."""

from __future__ import annotations

from typing import Final

from moesim.models import NoMixer
from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX
from moesim.step.work import Work

CONTEXT_RING: Final = "context_ring"  # tasks in which attention waits for keys and values of other ranks


def forward(chain: Chain) -> None:
    """All of it; nothing where the layer mixes no tokens."""
    if _nothing(chain):
        return
    chain.gather_tokens()
    chain.priced("attention")
    chain.context_ring(CONTEXT_RING, gradients=False)
    chain.sum_tokens()


def prepare(chain: Chain) -> None:
    """Norm and projections of queries, keys and values."""
    if _nothing(chain):
        return
    chain.gather_tokens()
    chain.priced("attention_prepare")


def core(chain: Chain) -> None:
    """Core and output projection."""
    if _nothing(chain):
        return
    chain.priced("attention_core")
    chain.sum_tokens()


def backward(chain: Chain) -> None:
    """Its gradients; with Megatron's recomputed `core_attn` the core runs once more before them, with `mla_up_proj`
    what makes queries, keys and values of latents.
    """
    if _nothing(chain):
        return
    plan, way, stretch = chain.plan, chain.node.way, chain.plan.stretch(chain.node)
    ops = plan.ops.at(chain.node.layer)
    gradients = chain.site.kept(
        ("attention_backward", ops.number, way, stretch), chain.node,
        lambda: (
            ops.attention_backward(chain.batch, way)
            + ops.added_up(len(chain.site.ranks), ops.spread.mixer_gemms(ops.number), way, plan.gradient_bytes)
        ).stretched(stretch),
    )  # fmt: skip
    if way == Way.BACKWARD_WEIGHT:
        chain.compute("attention" + SUFFIX[way], gradients)
        return
    again = chain.site.price("core", chain.node) if "core_attn" in plan.recompute else Work()
    if "mla_up_proj" in plan.recompute:
        again += chain.site.kept(("up", ops.number), chain.node, lambda: ops.up_projections(chain.batch))
    chain.gather_tokens()
    chain.gather_again()
    chain.compute("attention" + SUFFIX[way], again + gradients)
    if "core_attn" in plan.recompute:
        chain.context_ring(CONTEXT_RING, gradients=False)
    chain.context_ring(CONTEXT_RING, gradients=True)
    chain.sum_tokens()


def _nothing(chain: Chain) -> bool:
    return isinstance(chain.plan.ops.at(chain.node.layer).mixer, NoMixer)
