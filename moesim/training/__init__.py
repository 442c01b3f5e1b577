"""Training steps over pipeline stages: what a stage holds, how long its passes take, how a pipeline plays them."""

from __future__ import annotations

from moesim.training.beside import overlapped_ps
from moesim.training.job import Job
from moesim.training.memory import rank_memory
from moesim.training.passes import plays_fluid
from moesim.training.routed import RoutedStep, routed_step
from moesim.training.stages import Stage, even_stages
from moesim.training.step import StepTime, train_step

__all__ = [
    "Job",
    "RoutedStep",
    "Stage",
    "StepTime",
    "even_stages",
    "overlapped_ps",
    "plays_fluid",
    "rank_memory",
    "routed_step",
    "train_step",
]
