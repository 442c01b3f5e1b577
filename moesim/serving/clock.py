"""How long steps take: whatever answers `ps(batch)`. A Pace does, and so does any function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from moesim.serving.requests import Ints
from moesim.serving.settings import Settings
from moesim.step import Batch, Phase
from moesim.units import to_ps


class Clock(Protocol):
    """Of one plan."""

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""


@runtime_checkable
class Stretching(Protocol):
    """A clock that prices many steps of decodes at once."""

    def stretch(self, batch: Batch, steps: int) -> Ints:
        """int64[steps] ps of a batch of decodes, each step one token further than the one before."""


def stretched(clock: Clock, batch: Batch, steps: int) -> Ints | None:
    """All steps at once where the clock can, None where it is asked step by step."""
    return clock.stretch(batch, steps) if isinstance(clock, Stretching) else None


@dataclass(frozen=True)
class Given:
    """Steps as long as a function of the batch says, in ps."""

    of: Callable[[Batch], int]

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        return self.of(batch)


def hosted(clock: Clock, settings: Settings, layers: int) -> Clock:
    """The clock with the host's time for what no CUDA graph holds."""
    kind = HostedStretching if isinstance(clock, Stretching) else Hosted
    return kind(clock, settings, layers)


@dataclass(frozen=True)
class Hosted:
    """A clock whose steps are not shorter than the host takes to launch what no CUDA graph holds: with prompts beyond
    graph_tokens, or more decoded rows on a rank than graph_batch.
    """

    clock: Clock
    settings: Settings
    layers: int

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        return max(self.clock.ps(batch), self.least(batch))

    def least(self, batch: Batch) -> int:
        """Ticks that the host takes, 0 where a graph holds the step."""
        if not self.settings.eager_time_per_layer:
            return 0
        most = int(batch.tokens_of_rank.max(initial=0))
        prompts = bool((batch.phase == Phase.PREFILL).any())
        if most <= (self.settings.graph_tokens if prompts else self.settings.graph_batch):
            return 0
        return int(to_ps(self.settings.eager_time_per_layer)) * self.layers


class HostedStretching(Hosted):
    """The same of a clock that prices many steps at once."""

    def stretch(self, batch: Batch, steps: int) -> Ints:
        """int64[steps] ps."""
        assert isinstance(self.clock, Stretching)
        return np.maximum(self.clock.stretch(batch, steps), self.least(batch))
