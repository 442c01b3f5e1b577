"""In each sample every expert takes its best patches.

Source: Patch-level Routing in Mixture-of-Experts is Provably Sample-efficient (abstract).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate, layout, select_columns
from moesim.routing.routers.input import Floats, Ints, RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import Mask, highest, rows_of_mask, softmax


class PatchTopl(Router):
    """Per sample (request), each expert takes the top `l` of its n tokens in the batch; weights p.

    `l` defaults to ceil(n k / E). A sample with fewer tokens than l gives all of them.
    """

    l: Count | None = Field(  # noqa: E741 (the paper's name)
        None, description="tokens of a request that an expert takes; default: ceil(n k / E)"
    )

    @property
    def facts(self) -> Facts:
        """Tokens of one request compete, those of others do not."""
        return Facts(causal=False)

    def route(self, given: RouterInput) -> Assignment:
        """l rows an expert and sample."""
        p = softmax(given.logits)
        _, which, count = np.unique(given.request, return_inverse=True, return_counts=True)
        order = np.argsort(which, kind="stable")
        first = np.cumsum(count) - count
        mask: Mask = np.zeros(p.shape, dtype=bool)
        for length in np.unique(count):
            rows = order[first[count == length][:, None] + np.arange(length)]
            number = min(self.l or -(-int(length) * given.top_k // given.experts), int(length))
            samples = p[rows]
            best = _best(given, rows, samples, number)
            mask[np.take_along_axis(rows[:, :, None], best, axis=1), np.arange(given.experts)] = True
        return rows_of_mask(given, mask, p)

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """As expert choice: the best of every expert's column, rows gathered and scattered."""
        return gate(given) + select_columns(given, given.top_k) + layout(given, found)


def _best(given: RouterInput, rows: Ints, samples: Floats, number: int) -> Ints:
    """rows int64[S, n], samples [S, n, E] -> int64[S, number, E]: places of the highest in each sample's column."""
    count, length, experts = samples.shape
    columns = samples.transpose(0, 2, 1).reshape(count * experts, length)

    def tickets(tied: Ints) -> npt.NDArray[np.uint64]:
        sample, expert = np.divmod(tied, experts)
        found = given.tickets(experts, rows[sample].ravel()).reshape(len(tied), length, experts)
        mine: npt.NDArray[np.uint64] = np.take_along_axis(found, expert[:, None, None], axis=2)[:, :, 0]
        return mine

    return highest(columns, number, tickets).reshape(count, experts, number).transpose(0, 2, 1)
