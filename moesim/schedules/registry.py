"""Name -> layer schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from moesim.errors import pick
from moesim.schedules import sequential, two_batch
from moesim.schedules.verbs import Step


class LayerSchedule(NamedTuple):
    """`order(layers)` yields the steps of a batch that was cut into `micro_batches` parts."""

    micro_batches: int
    order: Callable[[int], Iterator[Step]]


REGISTRY: dict[str, LayerSchedule] = {
    "sequential": LayerSchedule(1, sequential.order),
    "two_batch": LayerSchedule(2, two_batch.order),
}


def layer_schedule(name: str, where: str = "") -> LayerSchedule:
    """The schedule of that name. Raises BadInput with the known names."""
    return pick("schedule", name, REGISTRY, where=where)
