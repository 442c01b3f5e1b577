"""`simulate`: the exact player. A World with one graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from moesim.engine.faults import Fault
from moesim.engine.graph import TaskGraph
from moesim.engine.speed import Speed
from moesim.engine.timeline import Timeline
from moesim.engine.world import World
from moesim.network.narrow import can_fill


def simulate(
    graph: TaskGraph,
    capacity: npt.NDArray[np.float64],
    *,
    network: str = "fluid",
    window: float = 0.0,
    faults: Iterable[Fault] = (),
    speed: Speed | None = None,
    barrier: bool = False,
    link_name: Sequence[str] = (),
) -> Timeline:
    """graph, capacity float64[L] B/s -> Timeline. Raises BadInput, Deadlock. See World for the arguments."""
    faults = tuple(faults)
    fixed = network == "fluid" and all(fault.link is None for fault in faults)
    fills = can_fill(capacity, [coflow.path for coflow in graph.coflows]) if fixed else None
    world = World(
        capacity, network=network, window=window, faults=faults, barrier=barrier, link_name=link_name, can_fill=fills
    )  # fmt: skip
    done = world.submit(graph, speed=speed)
    world.run()
    timeline: Timeline = done.value
    return timeline
