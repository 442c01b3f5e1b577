"""Pipelines: orders of passes on ranks, as integers; who plays them knows the seconds."""

from __future__ import annotations

from moesim.errors import unknown_name
from moesim.schedules.pipelines import dualpipe, dualpipe_v, gpipe, interleaved, one_f_one_b, zb_h1, zb_h2
from moesim.schedules.pipelines.act import Act, Orders, Pass, Slot
from moesim.schedules.pipelines.check import check_orders
from moesim.schedules.pipelines.clock import Played, play
from moesim.schedules.pipelines.drawing import draw
from moesim.schedules.pipelines.pipeline import Pipeline

FILES = (dualpipe, dualpipe_v, gpipe, interleaved, one_f_one_b, zb_h1, zb_h2)


def find_pipeline(name: str) -> type[Pipeline]:
    """By its name. Raises BadInput with the known ones."""
    if name not in Pipeline.known:
        raise unknown_name("pipeline", name, Pipeline.known)
    return Pipeline.known[name]


__all__ = ["Act", "Orders", "Pass", "Pipeline", "Played", "Slot", "check_orders", "draw", "find_pipeline", "play"]
