"""Pipelines: orders of passes on ranks, as integers; who plays them knows the seconds."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from moesim.errors import pick
from moesim.schedules.pipelines.act import Act, Orders, Pass, Slot
from moesim.schedules.pipelines.check import check_orders
from moesim.schedules.pipelines.clock import Played, needs, play
from moesim.schedules.pipelines.drawing import draw
from moesim.schedules.pipelines.pipeline import Pipeline

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # a pipeline registers itself


def find_pipeline(name: str) -> type[Pipeline]:
    """By its name. Raises BadInput with the known ones."""
    return pick("pipeline", name, Pipeline.known)


__all__ = [
    "Act",
    "Orders",
    "Pass",
    "Pipeline",
    "Played",
    "Slot",
    "check_orders",
    "draw",
    "find_pipeline",
    "needs",
    "play",
]
