"""In each sample every expert takes its best patches.

Source: Patch-level Routing in Mixture-of-Experts is Provably Sample-efficient (abstract).
"""

from __future__ import annotations

import numpy as np

from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Router
from moesim.routing.routers.select import Mask, rows_of_mask, softmax


class PatchTopl(Router):
    """Per sample (request), each expert takes the top `l` of its n tokens in the batch; weights p.

    `l` defaults to ceil(n k / E). A sample with fewer tokens than l gives all of them.
    """

    l: Count | None = None  # noqa: E741 (the paper's name)

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
            best = np.argpartition(samples, length - number, axis=1)[:, length - number :]
            mask[np.take_along_axis(rows[:, :, None], best, axis=1), np.arange(given.experts)] = True
        return rows_of_mask(given, mask, p)
