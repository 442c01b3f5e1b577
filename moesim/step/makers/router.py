"""The router: norm, and what deciding costs."""

from __future__ import annotations

from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.makers.names import SUFFIX
from moesim.step.work import Work


def forward(chain: Chain) -> None:
    """One round of it."""
    chain.compute("router", share(chain) + _permuted(chain))


def backward(chain: Chain) -> None:
    """Its gradients; those of projections to latent rows are added up."""
    way, plan = chain.node.way, chain.plan
    moved = Work() if way == Way.BACKWARD_WEIGHT else _permuted(chain)
    if latent := plan.model.latent_gemms():
        sums = plan.ops.added_up(len(chain.site.ranks), latent, way, plan.gradient_bytes)
        moved += sums.times(1 / len(chain.site.routing(chain.node).rounds))
    chain.compute("router" + SUFFIX[way], moved + plan.ops.backward("gemm", share(chain), way))


def share(chain: Chain) -> Work:
    """The router's work of one round: an even share of all."""
    routing, node = chain.site.routing(chain.node), chain.node
    if routing.chores is None:
        return chain.site.price("router", node)
    whole = chain.plan.ops.router(chain.batch, routing.chores)
    return whole.times(1 / len(routing.rounds)).stretched(chain.plan.stretch(node))


def _permuted(chain: Chain) -> Work:
    """An even share of the rounds, as above. Kernels that send a token once to each place (DeepEP) take it from where
    it lies, and add up what comes back.
    """
    if chain.plan.exchanges and chain.plan.dispatch.algorithm.deduplicates != "none":
        return Work()
    rounds = len(chain.site.routing(chain.node).rounds)
    return chain.site.kept(("permuted",), chain.node, lambda: chain.plan.ops.permuted(chain.batch)).times(1 / rounds)
