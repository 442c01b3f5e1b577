"""Requests as columns: when each arrives, how long its prompt is, how many tokens it asks for. No object a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.units import LAST_TICK

if TYPE_CHECKING:
    from moesim.serving.classes import Classes
    from moesim.serving.follows import Follows
    from moesim.serving.prefixes import Prefixes

Ints = npt.NDArray[np.int64]
MOST_TOKENS = (1 << 22) - 1  # of a prompt or an answer: contexts of that many are what costs are kept for


@dataclass(frozen=True)
class Requests:
    """int64[n] each: arrival (ps, ascending), prompt and output tokens (1 or more).

    concurrency: 0 where requests arrive by themselves; else a closed loop of so many clients, who send the next request
    when one of theirs is answered, and `arrival` says only when each could start at the earliest. prefixes: what their
    prompts have in common, None for nothing; classes: of which kind each is; follows: who comes
    after whom, the first ones after nobody, and `arrival` of others says nothing; None where there are none.
    """

    arrival: Ints
    prompt: Ints
    output: Ints
    concurrency: int = 0
    prefixes: Prefixes | None = None
    classes: Classes | None = None
    follows: Follows | None = None

    def __post_init__(self) -> None:
        if not len(self.arrival):
            raise BadInput("there is no request", way_out="requests.number: 1 or more")
        if len(self.prompt) != len(self.arrival) or len(self.output) != len(self.arrival):
            raise BadInput(f"{len(self.arrival)} arrivals, {len(self.prompt)} prompts, {len(self.output)} outputs")
        for name, column in (("prompt", self.prompt), ("output", self.output)):
            self._refuse_first(column < 1, f"has {name} of {{}} tokens", column, "1 or more")
            self._refuse_first(column > MOST_TOKENS, f"has {name} of {{}} tokens", column, f"at most {MOST_TOKENS}")
        self._refuse_first(self.arrival < 0, "arrives at {} ps", self.arrival, "times from 0 on")
        self._refuse_first(self.arrival >= LAST_TICK // 2, "arrives at {} ps", self.arrival, "times within a month")
        early = np.append(False, np.diff(self.arrival) < 0)
        self._refuse_first(early, "arrives at {} ps, before the one in front of it", self.arrival, "sort them by time")

    def _refuse_first(self, bad: npt.NDArray[np.bool_], what: str, column: Ints, way_out: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise BadInput(f"request {row} {what.format(column[row])}", way_out=way_out)

    @property
    def first(self) -> int:
        """How many come by themselves, or as clients are free: the first ones."""
        return self.follows.first if self.follows else len(self)

    def __len__(self) -> int:
        return len(self.arrival)
