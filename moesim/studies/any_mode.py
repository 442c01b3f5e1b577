"""`moesim.load` and `moesim.run`: a scenario of whatever mode, as the command line takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from moesim.errors import BadInput
from moesim.studies.load import SERVE, TRAIN, Loaded, Named, Overrides, Source, load
from moesim.studies.result import Result
from moesim.studies.run import run
from moesim.studies.serving import ServeLoaded, ServeResult, load_serving, run_serving
from moesim.studies.training import TrainLoaded, TrainResult, load_training, run_training

AnyLoaded = Loaded | ServeLoaded | TrainLoaded
LOADERS: Final[Mapping[str, Callable[[Named, Overrides], AnyLoaded]]] = {SERVE: load_serving, TRAIN: load_training}


def load_any(scenario: Named, overrides: Overrides = ()) -> AnyLoaded:
    """A shipped scenario's name, a YAML file, a dict of its keys or what this gave, with overrides as texts or a dict,
    checked by the schema of its mode. Raises BadInput.
    """
    if isinstance(scenario, AnyLoaded) and not overrides:
        return scenario
    mode = Source.of(scenario, overrides).document.data.get("mode")
    return LOADERS.get(str(mode), load)(scenario, overrides)


def run_any(
    scenario: Named, *, overrides: Overrides = (), seed: int = 0, draw_errors: bool = False,
    factors: Mapping[str, float] | None = None, tell: Callable[[str], None] = lambda stage: None,
) -> Result | ServeResult | TrainResult:  # fmt: skip
    """Play a step, serve requests, or play an optimizer step, as the scenario's mode says. seed: picks recorded
    requests, and of served ones what comes when; nothing of training is drawn. draw_errors, factors: of the prices of
    a step (see `studies.run`). Raises BadInput, DoesNotFit, Deadlock.
    """
    loaded = load_any(scenario, overrides)
    if isinstance(loaded, Loaded):
        return run(loaded, seed=seed, draw_errors=draw_errors, factors=factors, tell=tell)
    if draw_errors or factors:
        raise BadInput("errors of costs are drawn where one step is played", way_out="a scenario of mode: step")
    if isinstance(loaded, ServeLoaded):
        return run_serving(loaded, seed=seed, tell=tell)
    return run_training(loaded, tell=tell)
