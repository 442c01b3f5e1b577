"""What a network of a World tells the graphs that use it, and what they ask of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from moesim.engine.timeline import Carried, Transfers
from moesim.network import Coflow
from moesim.network.port_times import Spans

Lanes = npt.NDArray[np.int64]


class NetworkUser(Protocol):
    """A graph under way. Calls come at the World's current instant."""

    number: int

    def lanes_done(self, task: int, lanes: Lanes) -> None:
        """These lanes' own sends and receives are over."""

    def arrived(self, task: int, lanes: Lanes) -> None:
        """Every lane has released, and all bytes for these lanes have landed."""

    def ended(self, task: int, spans: Spans, status: str, carried: Carried | None = None) -> None:
        """The last port is done; carried: where faults changed paths or bytes."""


class Network(Protocol):
    """One level of detail of a World's network."""

    level: str
    num_links: int

    def release(self, user: NetworkUser, task: int, coflow: Coflow, lanes: Lanes, at: int) -> None:
        """Lanes of a task's coflow are there at tick `at`, now or later. The first release submits the coflow."""

    def standing(self, user: NetworkUser) -> list[tuple[int, list[int]]]:
        """(task, links whose bytes do not move) of the user's coflows under way, when nothing happens any more."""

    def saturated(self) -> npt.NDArray[np.float64] | None:
        """float64[L]: seconds in which each link was full so far, whoever's flows did it; None: nobody knows."""

    def links_end(self, transfers: Transfers) -> int:
        """Ticks before which no link has carried all of these, where that is more than the ends of coflows say."""

    def status(self, user: NetworkUser, task: int) -> str:
        """Of a coflow under way."""
