"""Sweeps: many runs of one subject with keys varied, each stored once, by several processes, resumable."""

from moesim.studies.sweeping.axes import Axis
from moesim.studies.sweeping.design import Design
from moesim.studies.sweeping.plan import Plan, Point, read_plan
from moesim.studies.sweeping.sweep import Engine, Sweep, sweep, sweep_over

__all__ = ["Axis", "Design", "Engine", "Plan", "Point", "Sweep", "read_plan", "sweep", "sweep_over"]
