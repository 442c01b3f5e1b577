"""How long steps take: whatever answers `ps(batch)`. A Pace does, and so does any function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.serving.requests import Ints
from moesim.serving.settings import Settings
from moesim.step import Batch, Phase
from moesim.units import LAST_TICK, beyond_clock, to_ps

Grows = npt.NDArray[np.bool_]
LONGEST = float(LAST_TICK)


@njit
def with_prompts(took: Any, decodes: Any, slow: Any) -> Any:
    """Of a step that takes so long, and without its prompts so long; what they add takes `slow` times as long;
    LAST_TICK where that is too late for the clock.
    """
    return min(took + round(min(max(took - decodes, 0) * (slow - 1), LONGEST)), LAST_TICK)


class Clock(Protocol):
    """Of one plan."""

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """int64[n] ps: ends of this step, which begins at `now`, and of those after it that begin before `horizon`,
        `most` in all; rows of `grows` bool[S] are a token longer in each, none takes less than `least`.
        """


def stepped(clock: Clock, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
    """Clock.ends, step by step."""
    ends: list[int] = []
    while not ends or (len(ends) < most and now < horizon):
        now += max(clock.ps(batch), least)
        if now >= LAST_TICK:
            raise beyond_clock("steps take too long", "shorter stages, faster links, or fewer requests")
        ends.append(now)
        batch = batch.onward(grows)
    return np.array(ends, dtype=np.int64)


def _any(batch: Batch, phase: Phase) -> bool:
    return bool((batch.phase == phase).any())


@dataclass(frozen=True)
class Given:
    """Steps as long as a function of the batch says, in ps."""

    of: Callable[[Batch], int]

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        return self.of(batch)

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """See Clock."""
        return stepped(self, batch, grows, now, horizon, most, least)


@dataclass(frozen=True)
class Hosted:
    """A clock by which prompts take prompt_slowdown times what their kernels add to a step, and no step is shorter than
    the host takes to launch what no CUDA graph holds: with prompts beyond graph_tokens, or more decoded rows than
    graph_batch. `ways` ranks share the tokens of a scheduler.
    """

    clock: Clock
    settings: Settings
    layers: int
    ways: int

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        return max(self.kernels(batch), self._least(batch, prompts=_any(batch, Phase.PREFILL)))

    def asked(self, batch: Batch) -> tuple[Batch, ...]:
        """What the clock is asked for: the batch, and its decoded rows where prompts beside them are slowed."""
        slowed = self.settings.prompt_slowdown > 1 and _any(batch, Phase.PREFILL) and _any(batch, Phase.DECODE)
        return (batch, batch.decodes) if slowed else (batch,)

    def kernels(self, batch: Batch) -> int:
        """Ticks of a step's kernels."""
        took, *alone = (self.clock.ps(one) for one in self.asked(batch))
        if not _any(batch, Phase.PREFILL):
            return took
        return int(with_prompts(took, alone[0] if alone else 0, self.settings.prompt_slowdown))

    def ends(self, batch: Batch, grows: Grows, now: int, horizon: int, most: int, least: int = 0) -> Ints:
        """See Clock; the host takes as long for each of a stretch, as only decodes come one after the other."""
        if most == 1 or _any(batch, Phase.PREFILL):
            return stepped(self, batch, grows, now, horizon, most, least)
        return self.clock.ends(batch, grows, now, horizon, most, max(least, self._least(batch, prompts=False)))

    def _least(self, batch: Batch, prompts: bool) -> int:
        """Ticks that the host takes, 0 where a graph holds the step."""
        if not self.settings.eager_time_per_layer:
            return 0
        most = int(batch.tokens_of_rank.reshape(-1, self.ways).sum(axis=1).max(initial=0))
        if most <= (self.settings.graph_tokens if prompts else self.settings.graph_batch):
            return 0
        return int(to_ps(self.settings.eager_time_per_layer)) * self.layers
