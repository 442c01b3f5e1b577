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
    """A clock whose steps are not shorter than the host takes to launch what no CUDA graph holds: with prompts beyond
    graph_tokens, or more decoded rows on a rank than graph_batch.
    """

    clock: Clock
    settings: Settings
    layers: int

    def ps(self, batch: Batch) -> int:
        """Ticks of a step."""
        ticks = self.clock.ps(batch)
        return max(ticks, self._eager) if self._launches(batch) else ticks

    @property
    def _eager(self) -> int:
        return int(to_ps(self.settings.eager_time_per_layer)) * self.layers

    def _launches(self, batch: Batch) -> bool:
        most = int(batch.tokens_of_rank.max(initial=0))
        prompts = bool((batch.phase == Phase.PREFILL).any())
        return most > (self.settings.graph_tokens if prompts else self.settings.graph_batch)
