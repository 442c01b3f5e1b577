"""Serving runs: scenario, build, run."""

from moesim.studies.serving.load import ServeLoaded, is_serving, load_serving, serving_files, serving_hash
from moesim.studies.serving.run import Once, ServeResult, run_serving
from moesim.studies.serving.scenario import ServeScenario

__all__ = [
    "Once", "ServeLoaded", "ServeResult", "ServeScenario", "is_serving", "load_serving", "run_serving", "serving_files",
    "serving_hash",
]  # fmt: skip
