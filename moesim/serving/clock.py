"""How long steps take: whatever answers `ps(batch)`. A Pace does, and so does any function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from moesim.serving.settings import Settings
from moesim.step import Batch, Phase
from moesim.units import to_ps


class Clock(Protocol):
    """Of one plan."""

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""


@dataclass(frozen=True)
class Given:
    """Steps as long as a function of the batch says, in ps."""

    of: Callable[[Batch], int]

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        return self.of(batch)


@dataclass(frozen=True)
class Hosted:
    """A clock whose steps with prompts take prompt_slowdown times what their kernels do, and are not shorter than the
    host takes to launch what no CUDA graph holds: with prompts beyond graph_tokens, or more decoded rows than
    graph_batch. `ways` ranks share the tokens of a scheduler.
    """

    clock: Clock
    settings: Settings
    layers: int
    ways: int

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        prompts, ticks = bool((batch.phase == Phase.PREFILL).any()), self.clock.ps(batch)
        if prompts:
            ticks = round(ticks * self.settings.prompt_slowdown)
        return max(ticks, self._least(batch, prompts))

    def _least(self, batch: Batch, prompts: bool) -> int:
        """Ticks that the host takes, 0 where a graph holds the step."""
        if not self.settings.eager_time_per_layer:
            return 0
        most = int(batch.tokens_of_rank.reshape(-1, self.ways).sum(axis=1).max(initial=0))
        if most <= (self.settings.graph_tokens if prompts else self.settings.graph_batch):
            return 0
        return int(to_ps(self.settings.eager_time_per_layer)) * self.layers
