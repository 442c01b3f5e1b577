"""moesim: a discrete-event simulator of Mixture-of-Experts clusters that replays recorded routing traces.

`load`, `run`, `compare`, `sweep` and `place` mirror the command line, and are imported when first used. A scenario is a
shipped name, a path, a dict or a `Scenario`, of any mode; `serve` and `train` are `run` for one mode. What comes back
shows itself in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moesim.version import __version__

if TYPE_CHECKING:
    from moesim.studies.any_mode import load_any as load
    from moesim.studies.any_mode import run_any as run
    from moesim.studies.compare import Comparison, compare
    from moesim.studies.placing import Outcome, place
    from moesim.studies.result import Result
    from moesim.studies.scenario import Scenario
    from moesim.studies.serving import ServeResult
    from moesim.studies.serving import run_serving as serve
    from moesim.studies.sweeping import Sweep
    from moesim.studies.sweeping import sweep_over as sweep
    from moesim.studies.training import TrainResult
    from moesim.studies.training import run_training as train

__all__ = [
    "Comparison", "Outcome", "Result", "Scenario", "ServeResult", "Sweep", "TrainResult", "__version__", "compare",
    "load", "place", "run", "serve", "sweep", "train",
]  # fmt: skip
RENAMED = {
    "load": "load_any", "run": "run_any", "serve": "run_serving", "sweep": "sweep_over", "train": "run_training",
}  # names that `studies` has for what it does  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'moesim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("moesim.studies"), RENAMED.get(name, name))


def __dir__() -> list[str]:
    return list(__all__)
