"""Training scenarios: which files they are, and where their keys stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moesim import yamlfile
from moesim.errors import MoesimError
from moesim.studies.load import TRAIN, Named, Overrides, apply, document_of, place
from moesim.studies.training.scenario import TrainScenario


@dataclass(frozen=True)
class TrainLoaded:
    """A TrainScenario and where each of its keys stands."""

    scenario: TrainScenario
    document: yamlfile.Document
    overridden: frozenset[str]

    def where(self, key: str) -> str:
        """The place of a dotted key: its --set option, or file and line."""
        return place(self.document, self.overridden, tuple(key.split(".")))

    @property
    def given(self) -> dict[str, Any]:
        """Keys that somebody wrote, with their values."""
        return self.document.data

    @contextmanager
    def placing(self, key: str) -> Iterator[None]:
        """Errors of rooms that know a key, or none, but no file: they get its line, or that of `key`."""
        try:
            yield
        except MoesimError as error:
            if error.where and error.where.split(".")[0] not in TrainScenario.model_fields:
                raise
            raise type(error)(error.what, where=self.where(error.where or key), way_out=error.way_out) from None


def is_training(scenario: Named, overrides: Overrides = ()) -> bool:
    """Whether a scenario is of mode: train. Raises BadInput for a file that cannot be read."""
    document = document_of(scenario)
    apply(document, overrides)
    return document.data.get("mode") == TRAIN


def load_training(scenario: Named, overrides: Overrides = ()) -> TrainLoaded:
    """A shipped scenario's name, a YAML file or a dict, overrides as `load` takes them. Raises BadInput."""
    document = document_of(scenario)
    overridden = apply(document, overrides)

    def where(keys: yamlfile.Keys) -> str:
        return place(document, overridden, keys)

    try:
        checked = yamlfile.validate(TrainScenario, document.data, where)
    except MoesimError as error:
        if error.where is None or error.where.split(".")[0] not in TrainScenario.model_fields:
            raise
        raise type(error)(error.what, where=where(tuple(error.where.split("."))), way_out=error.way_out) from None
    return TrainLoaded(checked, document, overridden)
