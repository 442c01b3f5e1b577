"""Two routed blocks side by side: one decides for each token, one for a whole task.

Source: T2MIR: Mixture-of-Experts Meets In-Context Reinforcement Learning (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
from moesim.routing.routers.input import Ints, RouterInput
from moesim.routing.routers.router import LOGITS, Count, Facts, Router
from moesim.routing.routers.scope_static import CLASSES
from moesim.routing.routers.select import chosen_weights, rows_of_table, top_k


class ParallelT2mir(Router):
    """Experts below `a` are the token-wise block, the others the task-wise one: its logits are those of the task
    (`domain`), the same for all of its tokens. Top-ka of the one and top-kb of the other, at once.
    """

    a: int | None = Field(None, ge=1, description="experts of the token-wise block; default: half")
    ka: Count = Field(1, description="experts of the token-wise block a token")
    kb: Count = Field(1, description="experts of the task-wise block a token")

    @property
    def facts(self) -> Facts:
        """Half of the rows are known with the task."""
        return Facts(needs=LOGITS | {"domain"}, stand_in="both blocks' logits are of one generator")

    def route(self, given: RouterInput) -> Assignment:
        """ka + kb rows a token. Raises BadInput where the token-wise block has all experts."""
        a = self._split(given)
        task = CLASSES + given.column("domain").astype(np.int64)
        of_task = given.column("logits", request=task, position=np.zeros_like(given.position))
        logits = np.concatenate((given.logits[:, :a], of_task[:, a:]), axis=1)
        ids: Ints = np.concatenate((top_k(given, logits[:, :a], self.ka), top_k(given, logits[:, a:], self.kb) + a), 1)
        return rows_of_table(given, ids, chosen_weights(logits, ids))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate for each block."""
        a = self._split(given)
        return gate(given, a) + gate(given, given.experts - a)

    def _split(self, given: RouterInput) -> int:
        a = self.a or given.experts // 2
        if not 0 < a < given.experts:
            raise BadInput(f"the token-wise block has {a} of {given.experts} experts", where="parallel_t2mir.a",
                           way_out=f"1 to {given.experts - 1}")  # fmt: skip
        return a
