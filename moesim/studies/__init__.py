"""Studies: a Scenario is loaded, run and compared; a Result says what was found and what it rests on."""

from moesim.studies.compare import Comparison, compare
from moesim.studies.load import load
from moesim.studies.placing import Outcome, place
from moesim.studies.result import Metric, Played, Result
from moesim.studies.run import run
from moesim.studies.scenario import Scenario
from moesim.studies.serving import run_serving
from moesim.studies.sweeping import Sweep, sweep_over

__all__ = [
    "Comparison",
    "Metric",
    "Outcome",
    "Played",
    "Result",
    "Scenario",
    "Sweep",
    "compare",
    "load",
    "place",
    "run",
    "run_serving",
    "sweep_over",
]
