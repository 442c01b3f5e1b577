"""Pipelines: orders of passes on ranks, as integers; who plays them knows the seconds."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol

from moesim.errors import pick
from moesim.schedules.pipelines.act import Act, Orders, Pass, Slot
from moesim.schedules.pipelines.check import check_orders
from moesim.schedules.pipelines.clock import Played, needs, play
from moesim.schedules.pipelines.drawing import draw
from moesim.schedules.pipelines.orders_file import SUFFIX, OrdersFile
from moesim.schedules.pipelines.pipeline import Pipeline

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # a pipeline registers itself


class Sized(Protocol):
    """A pipeline, once its numbers are known."""

    def __call__(self, ranks: int, micro_batches: int, chunks: int | None = None) -> Pipeline:
        """See Pipeline."""


def find_pipeline(name: str) -> Sized:
    """By its name, or FILE.csv for an order of the user's. Raises BadInput with the known ones."""
    if is_file(name):
        return partial(OrdersFile, Path(name))
    return pick("pipeline", name, Pipeline.known)


def is_file(name: str) -> bool:
    """Whether an order stands in a file of that name."""
    return name.endswith(SUFFIX)


__all__ = [
    "Act",
    "Orders",
    "OrdersFile",
    "Pass",
    "Pipeline",
    "Played",
    "Slot",
    "check_orders",
    "draw",
    "find_pipeline",
    "is_file",
    "needs",
    "play",
]
