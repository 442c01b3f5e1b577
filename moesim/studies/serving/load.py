"""Serving scenarios: which files they are, and where their keys stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.models import find_model
from moesim.serving.readers import find_requests
from moesim.studies.inputs import files_of, hash_of
from moesim.studies.load import SERVE, Loaded, Named, Overrides, Source
from moesim.studies.serving.fleet_sections import Role
from moesim.studies.serving.scenario import ServeScenario


@dataclass(frozen=True)
class ServeLoaded(Source):
    """A ServeScenario; step: what its replicas' plan is built from, whose keys stand in the same file."""

    scenario: ServeScenario
    step: Loaded

    @contextmanager
    def placing(self) -> Iterator[None]:
        """As Loaded.placing, of all keys."""
        with self.step.keyed(ServeScenario, self.step.document.source):
            yield


def is_serving(scenario: Named, overrides: Overrides = ()) -> bool:
    """Whether a scenario is of mode: serve. Raises BadInput for a file that cannot be read."""
    return Source.of(scenario, overrides).document.data.get("mode") == SERVE


def load_serving(scenario: Named, overrides: Overrides = ()) -> ServeLoaded:
    """A shipped serving scenario's name, a YAML file or a dict, overrides as `load` takes them. Raises BadInput."""
    source = Source.of(scenario, overrides)
    checked = source.read(ServeScenario)
    step = Loaded(source.document, source.overridden, checked.step())
    return ServeLoaded(source.document, source.overridden, checked, step)


@dataclass(frozen=True)
class PoolLoaded(Loaded):
    """One pool's step scenario: keys that the pool has of its own stand there."""

    role: str = ""

    def where(self, key: str) -> str:
        """See Loaded."""
        own = f"pools.{self.role}.{key}"
        return super().where(own if key.split(".")[0] in self._own else key)

    @property
    def given(self) -> dict[str, Any]:
        """See Loaded."""
        return {**self.document.data, **self._own}

    @property
    def _own(self) -> dict[str, Any]:
        pool: dict[str, Any] = self.document.data["pools"][self.role]
        return {key: value for key, value in pool.items() if value is not None}


def in_pool(loaded: ServeLoaded, role: Role, nodes: int) -> ServeLoaded:
    """A system of one pool's replicas alone, each on so many nodes."""
    scenario, step = loaded.scenario.pool(role, nodes), loaded.step
    own = PoolLoaded(step.document, step.overridden, scenario.step(), role=role)
    return ServeLoaded(step.document, step.overridden, scenario, own)


def serving_hash(loaded: ServeLoaded) -> str:
    """As content_hash, with the files of requests and stages. Raises BadInput."""
    return hash_of(loaded.scenario, serving_files(loaded))


def serving_files(loaded: ServeLoaded) -> dict[str, Path]:
    """As files_of, with the files of requests and of stages' models. Raises BadInput for unknown names."""
    requests = loaded.scenario.requests
    named = {"requests.arrivals.replay.file": requests.arrivals.replay}
    owners: dict[str, Any] = {f"requests.classes[{number}]": one for number, one in enumerate(requests.classes)}
    if requests.sessions and requests.sessions.children:
        owners["requests.sessions.children"] = requests.sessions.children
    for owner, section in {"requests": requests, **owners}.items():
        for side in ("input_length", "output_length"):
            length = getattr(section, side)
            named[f"{owner}.{side}.dataset.file"] = length.dataset if length else None
    files = {key: find_requests(one.file) for key, one in named.items() if one is not None}
    models = {
        f"stages[{number}].model": find_model(one.model)
        for number, one in enumerate(loaded.scenario.stages) if isinstance(one.model, str)
    }  # fmt: skip
    return {**files_of(loaded.scenario), **files, **models}
