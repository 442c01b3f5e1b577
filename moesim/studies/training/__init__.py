"""Scenarios of mode: train: one optimizer step of a pipelined training job, on any number of GPUs."""

from __future__ import annotations

from moesim.studies.training.load import TrainLoaded, is_training, load_training, training_files
from moesim.studies.training.run import TrainResult, run_training
from moesim.studies.training.scenario import TrainScenario

__all__ = [
    "TrainLoaded",
    "TrainResult",
    "TrainScenario",
    "is_training",
    "load_training",
    "run_training",
    "training_files",
]
