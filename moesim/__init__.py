"""moesim: a discrete-event simulator of Mixture-of-Experts clusters that replays recorded routing traces.

`load`, `run`, `serve`, `compare` and `place` mirror the command line; they are imported when they are first used. A
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

__all__ = ["Comparison", "Outcome", "Result", "Scenario", "__version__", "compare", "load", "place", "run", "serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'moesim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("moesim.studies"), {"serve": "run_serving"}.get(name, name))


def __dir__() -> list[str]:
    return list(__all__)
