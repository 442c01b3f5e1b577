"""No all-to-all: every rank of a tensor group has all its tokens, computes its own experts' share of each, and one
all-reduce adds the shares up.

What engines do where experts lie on the ranks that share attention: vLLM's `--enable-expert-parallel` without data
parallelism, SGLang's `--ep-size` with `--moe-a2a-backend none`, TensorRT-LLM's `moe_ep_size` without attention DP.
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class Replicated(AllToAll):
    """Every rank has all tokens: nothing is sent to experts, one all-reduce adds their shares up."""

    name = "replicated"
    reads = ()
    replicates = True

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """None."""
        return ()
