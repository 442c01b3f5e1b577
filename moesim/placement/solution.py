"""What a strategy answers, and what `solve` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from moesim.layout import Placement


class Bound(NamedTuple):
    """No placement within the limits scores below `value`; `kind` says by which argument ("none": not known)."""

    value: float
    kind: str

    def tighter(self, other: Bound) -> Bound:
        """The higher of two lower bounds."""
        return other if other.value > self.value else self


NO_BOUND = Bound(0.0, "none")


@dataclass(frozen=True)
class Answer:
    """A strategy's placement, what it proved about the optimum of the problem's objective, and what it must say."""

    placement: Placement
    bound: Bound = NO_BOUND
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Solution:
    """A placement and how good it is. Values are in the objective's unit, lower is better.

    objective: on the windows it was planned for; bound: no placement is below it there; gap: objective / bound - 1,
    None without a bound; moves: slots that need weights from elsewhere, None without a previous placement; heldout:
    the objective on windows that the strategy never saw; step_time: seconds by the name of the windows, as simulated;
    each: the single values whose mean the deciding held-out value is, by window or recording; step_each: step times by
    stretch of the deciding windows, or by recording; interrupted: whether Ctrl-C ended the search.
    """

    strategy: str
    placement: Placement
    objective: float
    bound: float
    gap: float | None
    bound_kind: str
    moves: int | None
    seconds: float
    heldout: Mapping[str, float] = field(default_factory=dict)
    step_time: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    each: tuple[float, ...] = ()
    step_each: tuple[float, ...] = ()
