"""Training scenarios: which files they are, and where their keys stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moesim.schedules.pipelines import is_file
from moesim.studies.inputs import files_of
from moesim.studies.load import TRAIN, Named, Overrides, Source
from moesim.studies.training.scenario import TrainScenario


@dataclass(frozen=True)
class TrainLoaded(Source):
    """A TrainScenario and where each of its keys stands."""

    scenario: TrainScenario

    @contextmanager
    def placing(self, key: str) -> Iterator[None]:
        """Errors of rooms that know a key, or none, but no file: they get its line, or that of `key`."""
        with self.keyed(TrainScenario, self.where(key)):
            yield


def training_files(scenario: TrainScenario) -> dict[str, Path]:
    """As files_of, with the order of a pipeline. Raises BadInput."""
    order = scenario.pipeline.schedule
    return {**files_of(scenario), **({"pipeline.schedule": Path(order)} if is_file(order) else {})}


def is_training(scenario: Named, overrides: Overrides = ()) -> bool:
    """Whether a scenario is of mode: train. Raises BadInput for a file that cannot be read."""
    return Source.of(scenario, overrides).document.data.get("mode") == TRAIN


def load_training(scenario: Named, overrides: Overrides = ()) -> TrainLoaded:
    """A shipped scenario's name, a YAML file or a dict, overrides as `load` takes them. Raises BadInput."""
    source = Source.of(scenario, overrides)
    return TrainLoaded(source.document, source.overridden, source.read(TrainScenario))
