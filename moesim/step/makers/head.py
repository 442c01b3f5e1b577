"""The two ends of a step: the host's share before the first kernel, and the output embedding."""

from __future__ import annotations

import numpy as np

from moesim.step.chain import Chain
from moesim.step.lowered import HOST
from moesim.step.makers.names import SUFFIX
from moesim.step.work import Work


def host(chain: Chain) -> None:
    """Seconds that the host takes before it launches anything."""
    chain.compute(HOST, Work({HOST: np.full(len(chain.site.ranks), chain.plan.host_seconds)}))


def forward(chain: Chain) -> None:
    """Tokens that are emitted, or all in training."""
    chain.priced("head")


def backward(chain: Chain) -> None:
    """Its gradients."""
    way = chain.node.way
    chain.compute("head" + SUFFIX[way], chain.plan.ops.backward("gemm", chain.site.price("head", chain.node), way))
