"""Results back to the tokens; and where a router sends rows in rounds, those after the first."""

from __future__ import annotations

from moesim.step.chain import Chain
from moesim.step.makers import dispatch, experts, router, shared


def forward(chain: Chain) -> None:
    """Of the first round, after partial sums of a shared expert are added up over its tensor group. Each later
    one is routed, sent, computed and brought back once the one before is.
    """
    shared.ring(chain, "reduce_scatter")
    first, *later = chain.site.routing(chain.node).rounds
    dispatch.bring_back(chain, "combine", first)
    for sent in later:
        router.forward(chain)
        dispatch.send(chain, "dispatch", sent, chain.plan.dispatch.dispatch_row_bytes)
        experts.of_round(chain, sent)
        dispatch.bring_back(chain, "combine", sent)


def backward(chain: Chain) -> None:
    """Gradients of results go to the experts as rows do forward, and over the tensor group of a shared one; before that
    later rounds, from the last to the second. DeepSeek-V3 (section 3.3.3) sends rows and these gradients in fp8, and
    brings results and the others back in bf16.
    """
    first, *later = chain.site.routing(chain.node).rounds
    row_bytes = chain.plan.dispatch.dispatch_row_bytes
    for sent in reversed(later):
        dispatch.send(chain, "combine_backward", sent, row_bytes)
        experts.backward_of_round(chain, sent)
        dispatch.bring_back(chain, "dispatch_backward", sent)
        router.backward(chain)
    shared.ring(chain, "all_gather")
    shared.ring(chain, "all_gather")  # its tokens, which no rank kept: see Chain.gather_again
    dispatch.send(chain, "combine_backward", first, row_bytes)
