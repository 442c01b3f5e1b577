"""Pool: the pair lists that collectives of a plan turn out to have, each once, on links of given capacities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.engine.skeleton import Pairs, joined
from moesim.network.flows import Coflow
from moesim.network.pattern import Pattern, Ports
from moesim.network.port_times import ticks_per_byte

Floats = npt.NDArray[np.float64]


class Pool:
    """Patterns by number. capacity float64[L] B/s."""

    def __init__(self, capacity: Floats) -> None:
        self._slowness = ticks_per_byte(capacity)
        self.patterns: list[Pattern] = []
        self._ports: list[Ports | None] = []
        self._number: dict[tuple[bytes, ...], int] = {}
        self._pairs: Pairs | None = None

    def number(self, coflow: Coflow) -> int:
        """The number of a coflow's pair list, which may be new."""
        columns = (coflow.owner_ptr, coflow.source, coflow.destination, coflow.path)
        key = tuple(column.tobytes() for column in columns)
        if key not in self._number:
            self._number[key] = len(self.patterns)
            self.patterns.append(Pattern.of(coflow))
            self._ports.append(self.patterns[-1].ports(self._slowness))
            self._pairs = None
        return self._number[key]

    @property
    def pairs(self) -> Pairs:
        """All of them with their ports."""
        if self._pairs is None:
            self._pairs = joined(self.patterns, self._ports, self._slowness)
        return self._pairs
