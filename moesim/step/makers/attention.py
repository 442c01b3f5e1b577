"""Attention: in one, or prepared and attended to in two nodes; spread over its tensor group."""

from __future__ import annotations

from moesim.models import NoMixer
from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX
from moesim.step.work import Work


def forward(chain: Chain) -> None:
    """All of it; nothing where the layer mixes no tokens."""
    if _nothing(chain):
        return
    chain.gather_tokens()
    chain.priced("attention")
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
    """Its gradients; with Megatron's recomputed `core_attn` the core runs once more before them."""
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
    chain.gather_tokens()
    chain.gather_again()
    chain.compute("attention" + SUFFIX[way], again + gradients)
    chain.sum_tokens()


def _nothing(chain: Chain) -> bool:
    return isinstance(chain.plan.ops.at(chain.node.layer).mixer, NoMixer)
