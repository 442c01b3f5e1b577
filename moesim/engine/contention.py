"""What flows that meet add to port loads, found by playing a few layers both ways: for loops over steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.engine.evaluate import evaluate
from moesim.engine.graph import TaskGraph
from moesim.engine.simulate import simulate
from moesim.engine.slices import of_tasks
from moesim.units import show_seconds

PLACES = 3  # stretches that are played, spread over the layers that exchange something
STRETCH = 3  # layers of one; a layer alone starts with all ranks in step, which the next one no longer does
WINDOW = 0.01


@dataclass(frozen=True)
class Contention:
    """seconds: what the fluid network adds to a step by port loads; spread: its standard deviation over the places that
    were played, as seconds of the step; layers: those that exchange something.
    """

    seconds: float
    spread: float
    layers: int

    def __str__(self) -> str:
        added, spread = show_seconds(self.seconds), show_seconds(self.spread)
        return f"estimated: {added} +- {spread}, from layers played by port loads and by the fluid network"


def contention(graph: TaskGraph, capacity: npt.NDArray[np.float64]) -> Contention:
    """graph of a step, capacity float64[L] B/s -> Contention, per layer that follows others. Raises Deadlock.

    A layer that follows others adds (excess of STRETCH layers - excess of the first of them) / (STRETCH - 1).
    """
    layers = np.unique(graph.layer[(graph.coflow >= 0) & (graph.layer >= 0)])
    stretch = min(STRETCH, len(layers))
    if not stretch:
        return Contention(0.0, 0.0, 0)
    firsts = np.unique(np.linspace(0, len(layers) - stretch, PLACES).astype(np.int64))
    added = [_added(graph, capacity, layers[first : first + stretch]) for first in firsts.tolist()]
    return Contention(float(np.mean(added)) * len(layers), float(np.std(added)) * len(layers), len(layers))


def _added(graph: TaskGraph, capacity: npt.NDArray[np.float64], layers: npt.NDArray[np.int32]) -> float:
    """Seconds a layer."""
    whole = _excess(graph, capacity, layers)
    if len(layers) == 1:
        return max(whole, 0.0)
    return max(whole - _excess(graph, capacity, layers[:1]), 0.0) / (len(layers) - 1)


def _excess(graph: TaskGraph, capacity: npt.NDArray[np.float64], layers: npt.NDArray[np.int32]) -> float:
    part = of_tasks(graph, np.flatnonzero(np.isin(graph.layer, layers)))
    return simulate(part, capacity, window=WINDOW).step_seconds - evaluate(part, capacity).step_seconds
