"""Scenario files: found by name or path, overridden by `--set a.b=value`, checked, and placed in errors by line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from moesim import shipped, yamlfile
from moesim.errors import BadInput, MoesimError, unknown_name
from moesim.models import MoEModel
from moesim.studies.scenario import Scenario

FOLDER = "workloads/scenarios"
Kind = TypeVar("Kind", bound=BaseModel)
SAME_SYSTEM = ("name", "description", "published", "network", "costs", "routing")  # how it is told, or modelled
SERVE, TRAIN = "serve", "train"  # the modes of scenarios that studies.serving and studies.training read


@dataclass(frozen=True)
class Source:
    """Where each key of a scenario stands."""

    document: yamlfile.Document
    overridden: frozenset[str]

    @classmethod
    def of(cls, scenario: Named, overrides: Overrides) -> Source:
        """Raises BadInput for a file that cannot be read."""
        document = document_of(scenario)
        return cls(document, apply(document, overrides))

    def where(self, key: str) -> str:
        """The place of a dotted key, `a.b[2].c` for one of a row: its --set option, or file and line."""
        return place(self.document, self.overridden, yamlfile.undotted(key))

    @property
    def given(self) -> dict[str, Any]:
        """Keys that somebody wrote, with their values."""
        return self.document.data

    def read(self, schema: type[Kind]) -> Kind:
        """The checked scenario. Raises BadInput at its line, also for what only the whole of it shows."""
        with self.keyed(schema):
            return yamlfile.validate(schema, self.document.data, lambda k: place(self.document, self.overridden, k))

    @contextmanager
    def keyed(self, schema: type[BaseModel], otherwise: str = "") -> Iterator[None]:
        """Errors of rooms that know a key, but no file, get its line; those that know no place get `otherwise`."""
        try:
            yield
        except MoesimError as error:
            if re.split(r"[.\[]", error.where or "")[0] not in schema.model_fields and (error.where or not otherwise):
                raise
            where = self.where(error.where) if error.where else otherwise
            raise type(error)(error.what, where=where, way_out=error.way_out) from None


@dataclass(frozen=True)
class Loaded(Source):
    """A Scenario and where each of its keys stands. unlike: keys that were changed, so that what was published of the
    scenario in the file is left out.
    """

    scenario: Scenario
    unlike: tuple[str, ...] = ()

    def played(self, model: MoEModel) -> MoEModel:
        """The scenario's model as it is played."""
        return model

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Errors of rooms that know a key, or nothing, but no file: they get its line, or the file."""
        with self.keyed(Scenario, self.document.source):
            yield

    def where_row(self, key: str, number: int) -> str:
        """The place of a row of a list."""
        return place(self.document, self.overridden, (key, number))


Named = str | Path | Mapping[str, Any] | Scenario | Source | yamlfile.Document  # whatever says what is to be run
Overrides = Sequence[str] | Mapping[str, Any]  # "a.b=value" texts, or {"a.b": value} and {"a": {"b": value}}


def load(scenario: Named, overrides: Overrides = ()) -> Loaded:
    """A shipped scenario's name, a YAML file, a dict of its keys, a Scenario or what `load` gave, with overrides as
    texts or as a dict. Raises BadInput.
    """
    if isinstance(scenario, Loaded):
        return _sealed(document_of(scenario), overrides, scenario.unlike) if overrides else scenario
    return _sealed(document_of(scenario), overrides)


def document_of(scenario: Named) -> yamlfile.Document:
    """Keys and values of a scenario, to be changed. Raises BadInput."""
    if isinstance(scenario, (Source, yamlfile.Document)):
        found = scenario.document if isinstance(scenario, Source) else scenario
        return replace(found, data=copy.deepcopy(found.data))
    if isinstance(scenario, Scenario):
        return yamlfile.Document(scenario.model_dump(mode="json", exclude_unset=True), f"scenario {scenario.name}")
    if isinstance(scenario, Mapping):
        return yamlfile.Document(copy.deepcopy(dict(scenario)), "scenario")
    if not isinstance(scenario, (str, Path)) or not str(scenario):
        raise BadInput(f"{scenario!r} is no scenario", way_out="a name, a path, a dict of keys or a Scenario")
    return yamlfile.read_yaml(find(scenario))


def as_yaml(scenario: Named) -> str:
    """Its keys as the text of a file. Raises BadInput."""
    return yaml.safe_dump(document_of(scenario).data, sort_keys=False, allow_unicode=True)


def load_data(data: dict[str, Any], source: str, overrides: Overrides = ()) -> Loaded:
    """A scenario that a command made of its own options; `source` names it in errors. Raises BadInput."""
    return _sealed(yamlfile.Document(data, source), overrides)


def _sealed(document: yamlfile.Document, overrides: Overrides, unlike: tuple[str, ...] = ()) -> Loaded:
    """unlike: as in Loaded, from changes before."""
    before = copy.deepcopy(document.data) if "published" in document.data else {}
    overridden = apply(document, overrides)
    other = {SERVE: "serves requests, it is not one step", TRAIN: "is a pipelined training step"}
    if (what := other.get(str(document.data.get("mode")))) is not None:
        way_out = "moesim run plays it; what asks for one step needs a scenario of mode: step"
        raise BadInput(what, where=document.where(("mode",)), way_out=way_out)
    if any(key.split(".")[0] == "published" for key in overridden):
        unlike = ()  # a figure of the changed scenario
    elif "published" in before and (changed := _other_system(before, document.data, overridden)):
        unlike = changed
        del document.data["published"]
    return Loaded(document, overridden, Source(document, overridden).read(Scenario), unlike)


def _other_system(before: Mapping[str, Any], now: Mapping[str, Any], overridden: Iterable[str]) -> tuple[str, ...]:
    """Keys of what is simulated that have another value than before."""
    asked = (key for key in overridden if key.split(".")[0] not in SAME_SYSTEM)
    return tuple(sorted(key for key in asked if _value(before, key) != _value(now, key)))


def _value(data: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        data = data.get(part, {}) if isinstance(data, Mapping) else {}
    return data


def apply(document: yamlfile.Document, overrides: Overrides) -> frozenset[str]:
    """Set "a.b=value", or the values of a dict, in the document's data -> the keys that were set. Raises BadInput."""
    if isinstance(overrides, Mapping):
        return frozenset(yamlfile.merge(document.data, overrides))
    if isinstance(overrides, str):
        raise BadInput(f"overrides are {overrides!r}, one text", way_out=f"[{overrides!r}]")
    return frozenset(yamlfile.override(document.data, text, "cluster.nodes=4") for text in overrides)


def find(name_or_path: str | Path) -> Path:
    """The file of a scenario. Raises BadInput with the shipped names."""
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return path
    known = shipped.names(FOLDER, ".yaml")
    if str(name_or_path) not in known:
        raise unknown_name("scenario", str(name_or_path), known)
    return known[str(name_or_path)]


def place(document: yamlfile.Document, overridden: frozenset[str], keys: yamlfile.Keys) -> str:
    dotted = yamlfile.dotted(keys)
    option = next((key for key in sorted(overridden) if re.match(rf"{re.escape(key)}(?![^.[])", dotted)), None)
    if option is None:
        return document.where(keys)
    return f"--set {option}" if option == dotted else f"--set {option}: {dotted}"
