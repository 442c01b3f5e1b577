"""The nearest code of a codebook names the expert.

Source: On the effectiveness of discrete representations in sparse mixture of experts (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import rows_of_table


class CodebookVq(Router):
    """c = the token's code, e = map[c], weight 1. Codes are drawn: the r-th has usage (r + 1) ** -zipf."""

    codes: Count = Field(1024, description="entries of the codebook")
    zipf: float = Field(1.0, ge=0, le=5, description="exponent of the usage of codes; 0: even")

    @property
    def facts(self) -> Facts:
        """A code needs the hidden state; here it is drawn from its usage."""
        return Facts(needs=frozenset(), stand_in="codes are drawn from a usage table, not from hidden states")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token."""
        usage = np.cumsum(np.arange(1, self.codes + 1) ** -self.zipf)
        code = np.searchsorted(usage, given.uniform("code") * usage[-1], side="right")
        expert_of = given.generator("codes", given.layer).permutation(self.codes) % given.experts
        return rows_of_table(given, expert_of[code][:, None], np.ones((given.tokens, 1), dtype=np.float32))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """The nearest code is looked for among all: a gate as wide as the codebook."""
        return gate(given, self.codes)
