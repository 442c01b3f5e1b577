"""When requests come: a kind of arrivals is one file here, a section with its keys, and one line in Arrivals."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from pydantic import model_validator

from moesim.serving.arrivals.burst import Burst
from moesim.serving.arrivals.closed_loop import ClosedLoop
from moesim.serving.arrivals.gamma import Gamma
from moesim.serving.arrivals.poisson import Poisson
from moesim.serving.arrivals.ramp import Ramp
from moesim.serving.arrivals.replay import Replay
from moesim.serving.arrivals.times import Floats
from moesim.serving.arrivals.wave import Wave
from moesim.serving.requests import Ints
from moesim.units import to_ps
from moesim.yamlfile import Section


class Drawable(Protocol):
    """A kind of arrivals."""

    def seconds(self, n: int, rng: np.random.Generator) -> Floats:
        """float64[n], ascending."""


class OwnArrivals(Section):
    """One of these; they come whatever is answered."""

    poisson: Poisson | None = None
    gamma: Gamma | None = None
    ramp: Ramp | None = None
    wave: Wave | None = None
    burst: Burst | None = None

    @model_validator(mode="after")
    def _one(self) -> OwnArrivals:
        kinds = list(type(self).model_fields)
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)} (given: {', '.join(given) or 'none'})")
        return self

    def drawn(self, n: int, rng: np.random.Generator) -> Ints:
        """int64[n] ps, ascending; of any kind but replay. Raises BadInput beyond the clock's range."""
        kind = self._drawable()
        assert kind is not None
        return to_ps(kind.seconds(n, rng))

    def _drawable(self) -> Drawable | None:
        return self.poisson or self.gamma or self.ramp or self.wave or self.burst


class Arrivals(OwnArrivals):
    """One of these."""

    closed_loop: ClosedLoop | None = None
    replay: Replay | None = None

    def _drawable(self) -> Drawable | None:
        return super()._drawable() or self.closed_loop


__all__ = ["Arrivals", "Burst", "ClosedLoop", "Gamma", "OwnArrivals", "Poisson", "Ramp", "Replay", "Wave"]
