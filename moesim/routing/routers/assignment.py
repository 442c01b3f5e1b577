"""Assignment: what a router decided, one row for each (token, expert), whatever became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moesim.routing.routers.input import Floats, Ints
from moesim.routing.shape import NO_EXPERT

Bytes = npt.NDArray[np.uint8]


class Status(IntEnum):
    """What became of a row. DROPPED and NULL rows move no bytes and cost nothing; all others do both."""

    KEPT = 0
    DROPPED = 1  # no room at its expert; the token's residual goes on without it
    RECTIFIED = 2  # dropped, then moved to another expert
    FILLED = 3  # added to fill a free place
    NULL = 4  # a zero-compute expert (null, zero, copy, constant) or a layer that is skipped
    PROBE = 5  # computed only to decide which rows count
    PAD = 6  # an empty place that is sent and computed all the same


MOVING = (Status.KEPT, Status.RECTIFIED, Status.FILLED, Status.PROBE, Status.PAD)
_MOVES = np.isin(np.arange(len(Status)), MOVING)


@dataclass(frozen=True)
class Assignment:
    """token int64[R] (row of `rank`), expert int64[R], weight float32[R], choice, round, status uint8[R].

    rank, owner int64[U]: source rank of each token (or slot) and the token of the batch that it belongs to. Ids below
    `experts` compute; ids from there on are zero-compute experts, which are everywhere. Id e is placed where expert
    e % physical is. `extra` counts work beside the rows, in units of its name.
    """

    experts: int
    physical: int
    rank: Ints
    owner: Ints
    token: Ints
    expert: Ints
    weight: Floats
    choice: Bytes
    round: Bytes
    status: Bytes
    unit: Literal["token", "slot"] = "token"
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """U: tokens, or slots."""
        return len(self.rank)

    @property
    def moves(self) -> npt.NDArray[np.bool_]:
        """bool[R]: rows that are sent and computed."""
        found: npt.NDArray[np.bool_] = _MOVES[self.status] & (self.expert < self.experts)
        return found

    def count(self, *status: Status) -> int:
        """Rows with one of these statuses."""
        return int(np.isin(self.status, status).sum())

    @property
    def chosen(self) -> int:
        """Rows that the router chose, whatever became of them; those that were filled in or padded are more."""
        return self.count(Status.KEPT, Status.DROPPED, Status.RECTIFIED)

    @property
    def drop_rate(self) -> float:
        """Dropped rows over chosen ones."""
        return self.count(Status.DROPPED) / max(self.chosen, 1)

    @property
    def counted(self) -> int:
        """Computed rows that count in a token's output."""
        return int((self.moves & ~np.isin(self.status, (Status.PROBE, Status.PAD))).sum())

    @property
    def mean_k(self) -> float:
        """Computed rows of a token that count in its output; padding is no token."""
        return self.counted / max(self.units - self.count(Status.PAD), 1)

    @property
    def rounds(self) -> int:
        """How often a token goes through the layer's experts, one round after the other."""
        return int(self.round.max(initial=0)) + 1

    @property
    def without_expert(self) -> int:
        """Units that no expert computes; padding is none."""
        reached = np.zeros(self.units, dtype=bool)
        reached[self.token[self.moves]] = True
        return self.units - int(reached.sum())

    @property
    def load(self) -> Ints:
        """int64[experts]: rows that each expert computes."""
        return np.bincount(self.expert[self.moves], minlength=self.experts)[: self.experts].astype(np.int64)

    @property
    def max_vio(self) -> float:
        """Load of the hottest expert over the mean, minus one (Wang et al., arXiv 2408.15664)."""
        return float(self.load.max() / max(self.load.mean(), 1e-12) - 1)

    def experts_of(self, token: int) -> list[int]:
        """The experts that compute a token, in the order of the rows."""
        return [int(e) for e in self.expert[(self.token == token) & self.moves]]

    def with_status(self, status: npt.ArrayLike) -> Assignment:
        """The same rows with other statuses."""
        return replace(self, status=np.asarray(status, dtype=np.uint8))

    def with_rows(self, **columns: Any) -> Assignment:
        """The same rows with other values in some columns."""
        return replace(self, **columns)

    def with_extra(self, **work: float) -> Assignment:
        """The same rows and more work beside them."""
        return replace(self, extra={**self.extra, **work})

    def table(self) -> tuple[npt.NDArray[np.uint16], Ints]:
        """(uint16[N, k] experts that compute each (token, round), NO_EXPERT after the last; int64[N] its unit).

        Without rounds N is U; a token that takes part in several rounds has a row for each.
        """
        rounds = self.rounds
        cell = self.round.astype(np.int64) * self.units + self.token
        moves = np.flatnonzero(self.moves)
        moves = moves[np.argsort(cell[moves], kind="stable")]
        cell = cell[moves]
        count = np.bincount(cell, minlength=rounds * self.units)
        column = np.arange(len(cell)) - (np.cumsum(count) - count)[cell]
        found = np.full((len(count), max(int(count.max(initial=0)), 1)), NO_EXPERT, dtype=np.uint16)
        found[cell, column] = self.expert[moves] % self.physical
        return found, np.tile(np.arange(self.units), rounds)
