"""The shared expert, where a model has one; its tokens are gathered where it is spread over a tensor group."""

from __future__ import annotations

from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX


def forward(chain: Chain) -> None:
    """Of all tokens of the tensor group over which it is spread, or of the rank's own."""
    if chain.plan.model.shared_intermediate:
        chain.priced("shared")


def backward(chain: Chain) -> None:
    """Its gradients."""
    way = chain.node.way
    if chain.plan.model.shared_intermediate:
        forward, ops = chain.site.price("shared", chain.node), chain.plan.ops
        sums = ops.added_up(len(chain.site.ranks), ops.spread.shared_gemms(), way, chain.plan.gradient_bytes)
        chain.compute("shared" + SUFFIX[way], ops.backward("gemm", forward, way) + sums)


def gather(chain: Chain) -> None:
    """Its tokens, to all ranks that share it."""
    ring(chain, "all_gather")


def gather_backward(chain: Chain) -> None:
    """Their gradients, added up."""
    ring(chain, "reduce_scatter")


def ring(chain: Chain, op: str) -> None:
    """Around a shared expert that is spread while tokens are sliced."""
    spread = chain.plan.ops.spread
    if chain.plan.model.shared_intermediate and spread.shared_ways > 1 and spread.residual == "sliced":
        chain.tensor_ring(op)
