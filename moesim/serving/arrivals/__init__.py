"""When requests come: a kind of arrivals is one file here, a section with its keys, and one line in Arrivals."""

from __future__ import annotations

import numpy as np
from pydantic import model_validator

from moesim.serving.arrivals.burst import Burst
from moesim.serving.arrivals.closed_loop import ClosedLoop
from moesim.serving.arrivals.gamma import Gamma
from moesim.serving.arrivals.poisson import Poisson
from moesim.serving.arrivals.ramp import Ramp
from moesim.serving.arrivals.replay import Replay
from moesim.serving.arrivals.wave import Wave
from moesim.serving.requests import Ints
from moesim.units import to_ps
from moesim.yamlfile import Section


class Arrivals(Section):
    """One of these."""

    poisson: Poisson | None = None
    gamma: Gamma | None = None
    ramp: Ramp | None = None
    wave: Wave | None = None
    burst: Burst | None = None
    closed_loop: ClosedLoop | None = None
    replay: Replay | None = None

    @model_validator(mode="after")
    def _one(self) -> Arrivals:
        kinds = list(type(self).model_fields)
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)} (given: {', '.join(given) or 'none'})")
        return self

    def drawn(self, n: int, rng: np.random.Generator) -> Ints:
        """int64[n] ps, ascending; of any kind but replay. Raises BadInput beyond the clock's range."""
        kind = self.poisson or self.gamma or self.ramp or self.wave or self.burst or self.closed_loop
        assert kind is not None
        return to_ps(kind.seconds(n, rng))


__all__ = ["Arrivals", "Burst", "ClosedLoop", "Gamma", "Poisson", "Ramp", "Replay", "Wave"]
