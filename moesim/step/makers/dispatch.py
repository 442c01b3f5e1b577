"""Rows to the ranks that hold their experts, and gradients of rows on the same way back."""

from __future__ import annotations

from moesim.network.copies import Copies
from moesim.step.chain import Chain
from moesim.step.rings import shared_copies
from moesim.step.traffic import Traffic


def forward(chain: Chain) -> None:
    """Of the first round, counted."""
    chain.site.count(chain.node)
    replay(chain)


def replay(chain: Chain) -> None:
    """Of the first round."""
    send(chain, "dispatch", chain.site.routing(chain.node).rounds[0], chain.plan.dispatch.dispatch_row_bytes)


def backward(chain: Chain) -> None:
    """Gradients of the rows come back."""
    bring_back(chain, "dispatch_backward", chain.site.routing(chain.node).rounds[0])


def send(chain: Chain, name: str, sent: Traffic, row_bytes: int) -> None:
    """All-to-all to the ranks that hold the experts; then each hands its rows to those who share them."""
    if chain.plan.exchanges:
        stages = chain.plan.dispatch.algorithm.dispatch(sent.copies, row_bytes, chain.site.group)
        chain.exchange(name, stages, row_bytes)
    _share_rows(chain, "all_gather", sent.copies, row_bytes)


def bring_back(chain: Chain, name: str, sent: Traffic) -> None:
    """The way back: partial sums of those who share experts first, then the all-to-all."""
    row_bytes = chain.plan.dispatch.combine_row_bytes
    _share_rows(chain, "reduce_scatter", sent.back, row_bytes)
    if chain.plan.exchanges:
        stages = chain.plan.dispatch.algorithm.combine(sent.back, row_bytes, chain.site.group)
        chain.exchange(name, stages, row_bytes)
    elif chain.plan.ops.spread.residual == "replicated":
        chain.sum_tokens()


def _share_rows(chain: Chain, op: str, copies: Copies, row_bytes: int) -> None:
    """All-gather or reduce-scatter of the rows that arrived, among the ranks that share the width of experts. A token
    that was sent nowhere is handed on once.
    """
    if level := shared_copies(chain.plan):
        chain.ring(op, chain.plan.ops.spread.expert_tensor, getattr(copies, level).sum(axis=0) * row_bytes)
