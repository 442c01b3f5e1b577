"""Experts of two kinds: a GRU that goes through a sequence token by token, and FFNs.

Source: Hecto: Modular Sparse Experts for Adaptive and Interpretable Reasoning (abstract).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.chores import Chores, Counts, of_rank
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Inner, Router, inherit
from moesim.routing.routers.topk_softmax import TopkSoftmax

GATES = 3  # of a GRU: reset, update, candidate


class RecurrentHecto(Router):
    """A share `split` of the tokens goes to a GRU of `width`, which every GPU has and runs over its own tokens of a
    sequence; the inner router decides for the others.
    """

    inner: Inner = Field(TopkSoftmax(k=1), description="the router of tokens that go to FFNs")
    split: Fraction = Field(0.5, description="share of tokens that go to the GRU")
    width: Count = Field(256, description="of the GRU's state")

    @property
    def facts(self) -> Facts:
        """The GRU's share is given."""
        return inherit(self.inner, stand_in="a hash picks the GRU's tokens")

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows; those of the GRU's tokens move nothing."""
        found = self.inner.route(given)
        recurrent = self._recurrent(given)[found.owner[found.token]]
        return found.with_status(np.where(recurrent, Status.NULL, found.status))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """Beside the gate the GRU, on every rank: its input and output matrices over all of its tokens, and for each
        step of the longest sequence a product of the states of those that are so long, one after the other.
        """
        mine, wide = self._recurrent(given), GATES * self.width
        many = of_rank(given, given.rank[mine])
        gemms = [(many, wide, given.hidden), (many, given.hidden, self.width)]
        gemms += [(states, wide, self.width) for states in _alive(given, mine)]
        held = wide * (given.hidden + self.width) + given.hidden * self.width
        return self.inner.chores(given, found) + Chores(gemms=tuple(gemms), held=held)

    def _recurrent(self, given: RouterInput) -> npt.NDArray[np.bool_]:
        return given.uniform("gru") < self.split


def _alive(given: RouterInput, mine: npt.NDArray[np.bool_]) -> Iterator[Counts]:
    """int64[R] for each step of the longest sequence: sequences of each rank with as many of these tokens or more."""
    sequences, length = np.unique(np.stack((given.rank[mine], given.request[mine])), axis=1, return_counts=True)
    for step in range(int(length.max(initial=0))):
        yield of_rank(given, sequences[0, length > step])
