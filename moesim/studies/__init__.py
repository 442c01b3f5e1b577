"""Studies: a Scenario is loaded, run and compared; a Result says what was found and what it rests on."""

from moesim.studies.any_mode import load_any, run_any
from moesim.studies.compare import Comparison, compare
from moesim.studies.load import load
from moesim.studies.placing import Outcome, place
from moesim.studies.result import Metric, Played, Result
from moesim.studies.run import run
from moesim.studies.scenario import Scenario
from moesim.studies.serving import ServeResult, run_serving
from moesim.studies.sweeping import Sweep, sweep_over
from moesim.studies.training import TrainResult, run_training

__all__ = [
    "Comparison",
    "Metric",
    "Outcome",
    "Played",
    "Result",
    "Scenario",
    "ServeResult",
    "Sweep",
    "TrainResult",
    "compare",
    "load",
    "load_any",
    "place",
    "run",
    "run_any",
    "run_serving",
    "run_training",
    "sweep_over",
]
