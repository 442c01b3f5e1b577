"""Gradients that all data-parallel ranks have, of one layer, in the gaps between other transfers."""

from __future__ import annotations

from moesim.step.chain import Chain
from moesim.step.optimizer import after_step, coflow_of, shared_parameters


def reduce(chain: Chain) -> None:
    """A share of them, as their sharding says."""
    plan, node = chain.plan, chain.node
    dense = node.share * shared_parameters(plan, node.layer)
    for moved in after_step(plan.shards, dense, 0, plan.gradient_bytes)[0]:
        chain.transfer(moved.name, coflow_of(plan, moved))
