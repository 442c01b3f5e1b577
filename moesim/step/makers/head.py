"""The two ends of a step: the host's share before the first kernel and the input embedding; the output embedding.

Both embeddings are spread over a tensor group by vocabulary (vLLM, SGLang and Megatron alike).
"""

from __future__ import annotations

import numpy as np

from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.lowered import HOST
from moesim.step.makers.names import SUFFIX
from moesim.step.rings import LOGITS
from moesim.step.work import Work


def host(chain: Chain) -> None:
    """Seconds that the host takes before it launches anything."""
    chain.compute(HOST, Work({HOST: np.full(len(chain.site.ranks), chain.plan.host_seconds)}))


def embedding(chain: Chain) -> None:
    """A rank finds the tokens that its part of the vocabulary holds, zeros for the others: their sum is the stream."""
    chain.sum_tokens("embedding_")


def embedding_backward(chain: Chain) -> None:
    """Every rank needs the gradients of all tokens of its group."""
    chain.gather_tokens("embedding_")


def forward(chain: Chain) -> None:
    """Tokens that are emitted, whose logits every rank gets; or all in training, whose loss is taken where they are."""
    chain.gather_tokens("head_")
    chain.compute("head", chain.site.price("head", chain.node) + _loss(chain))
    if not chain.batch.training:
        chain.tensor_ring(LOGITS)


def backward(chain: Chain) -> None:
    """Its gradients."""
    way = chain.node.way
    ops = chain.plan.ops
    sums = ops.added_up(len(chain.site.ranks), (ops.spread.head_gemm(),), way, chain.plan.gradient_bytes)
    if way != Way.BACKWARD_WEIGHT:
        chain.gather_again("head_")
    loss = Work() if way == Way.BACKWARD_WEIGHT else _loss(chain)
    chain.compute("head" + SUFFIX[way], loss + ops.backward("gemm", chain.site.price("head", chain.node), way) + sums)
    if way != Way.BACKWARD_WEIGHT:
        chain.sum_tokens("head_")


def _loss(chain: Chain) -> Work:
    return chain.site.kept(("loss",), chain.node, lambda: chain.plan.ops.loss(chain.batch))
