"""moesim: a discrete-event simulator of Mixture-of-Experts clusters that replays recorded routing traces.

`load`, `run`, `serve`, `compare`, `sweep` and `place` mirror the command line, and are imported when first used. A
scenario is a shipped name, a path, a dict or a `Scenario`; what comes back shows itself in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moesim.version import __version__

if TYPE_CHECKING:
    from moesim.studies.compare import Comparison, compare
    from moesim.studies.load import load
    from moesim.studies.placing import Outcome, place
    from moesim.studies.result import Result
    from moesim.studies.run import run
    from moesim.studies.scenario import Scenario
    from moesim.studies.serving import run_serving as serve
    from moesim.studies.sweeping import Sweep
    from moesim.studies.sweeping import sweep_over as sweep

__all__ = [
    "Comparison", "Outcome", "Result", "Scenario", "Sweep", "__version__", "compare", "load", "place", "run", "serve",
    "sweep",
]  # fmt: skip
RENAMED = {"serve": "run_serving", "sweep": "sweep_over"}  # names that `studies` has for what it does


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'moesim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("moesim.studies"), RENAMED.get(name, name))


def __dir__() -> list[str]:
    return list(__all__)
