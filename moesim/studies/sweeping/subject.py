"""A subject: whatever can be run, varied and stored. One entry for a step, training, served requests and a placement.

A kind of scenario is one class here and a line in KINDS: it reads plain data with overrides, knows the hash of what a
run of it depends on, and plays. Keys of `error` set the factor on the seconds of a family of costs, beside those of
the scenario.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from moesim import yamlfile
from moesim.errors import BadInput, pick
from moesim.studies.inputs import Digest, files_of, hash_of
from moesim.studies.load import SERVE, TRAIN, apply, find, load
from moesim.studies.placing import search
from moesim.studies.run import run
from moesim.studies.serving import load_serving, run_serving, serving_files
from moesim.studies.sweeping.place import PLACE, load_placing
from moesim.studies.training import load_training, run_training, training_files

ERROR: Final = "error."  # before the name of a family of costs
Result = Mapping[str, Any]  # the JSON document of a run


class Played(Protocol):
    """A scenario of some kind, read and checked. drawn: seeds change something."""

    drawn: ClassVar[bool]

    def identity(self, digest: Digest) -> str:
        """sha256 of what a run depends on but the seed, with the contents of files. Raises BadInput."""

    def play(self, seed: int, factors: Mapping[str, float]) -> Result:
        """As `moesim run`; factors: error family -> on its seconds. Raises MoesimError."""


class SingleStep:
    """One step, of training too."""

    headline: ClassVar = ("step_time_s", "tokens_per_s_per_gpu")
    drawn: ClassVar = True

    def __init__(self, base: yamlfile.Document, overrides: Sequence[str]) -> None:
        self.loaded = load(base, overrides)

    def identity(self, digest: Digest) -> str:
        """See Played."""
        return hash_of(self.loaded.scenario, files_of(self.loaded.scenario), digest)

    def play(self, seed: int, factors: Mapping[str, float]) -> Result:
        """See Played."""
        return run(self.loaded, seed=seed, factors=factors or None).to_json()


class Training:
    """One optimizer step over pipeline stages; nothing in it is drawn by a seed."""

    headline: ClassVar = ("step_time_s", "tokens_per_s_per_gpu", "mfu_megatron")
    drawn: ClassVar = False

    def __init__(self, base: yamlfile.Document, overrides: Sequence[str]) -> None:
        self.loaded = load_training(base, overrides)

    def identity(self, digest: Digest) -> str:
        """See Played."""
        return hash_of(self.loaded.scenario, training_files(self.loaded.scenario), digest)

    def play(self, seed: int, factors: Mapping[str, float]) -> Result:
        """See Played."""
        _no_factors(factors)
        return run_training(self.loaded).to_json()


class Serving:
    """Requests served by replicas."""

    headline: ClassVar = ("output_throughput", "mean_ttft_ms", "mean_tpot_ms")
    drawn: ClassVar = True

    def __init__(self, base: yamlfile.Document, overrides: Sequence[str]) -> None:
        self.loaded = load_serving(base, overrides)

    def identity(self, digest: Digest) -> str:
        """See Played."""
        return hash_of(self.loaded.scenario, serving_files(self.loaded), digest)

    def play(self, seed: int, factors: Mapping[str, float]) -> Result:
        """See Played."""
        _no_factors(factors)
        return run_serving(self.loaded, seed=seed).to_json()


class Placing:
    """What `moesim place` searches."""

    headline: ClassVar = ("objective", "step_time_s", "gain_over_eplb")
    drawn: ClassVar = True

    def __init__(self, base: yamlfile.Document, overrides: Sequence[str]) -> None:
        self.loaded = load_placing(base, overrides)

    def identity(self, digest: Digest) -> str:
        """See Played."""
        return self.loaded.identity(digest)

    def play(self, seed: int, factors: Mapping[str, float]) -> Result:
        """See Played."""
        _no_factors(factors)
        return search(self.loaded.options(seed)).to_json()


KINDS: Final[dict[str, type[SingleStep] | type[Training] | type[Serving] | type[Placing]]] = {
    "step": SingleStep, TRAIN: Training, SERVE: Serving, PLACE: Placing,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What is varied: keys and values, and which kind of scenario they make."""

    name: str
    mode: str
    base: yamlfile.Document

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics that are shown where nobody says which."""
        return KINDS[self.mode].headline

    @property
    def drawn(self) -> bool:
        """Whether seeds change something."""
        return KINDS[self.mode].drawn

    def sets(self, key: str) -> bool:
        """Whether a dotted key has one plain value here; defaults that nobody wrote are not looked at."""
        try:
            return not isinstance(self.value(key), (dict, list))
        except KeyError:
            return False

    def value(self, key: str) -> Any:
        """Of a dotted key. Raises KeyError."""
        return within(self.base.data, key)

    def read(self, overrides: Sequence[str]) -> Played:
        """With keys set, those of errors left out. Raises BadInput."""
        return KINDS[self.mode](self.base, [text for text in overrides if not text.startswith(ERROR)])

    def identity(self, overrides: Sequence[str], digest: Digest) -> str:
        """sha256 of what a run depends on but the seed. Raises BadInput."""
        found, factors = self.read(overrides).identity(digest), _factors(overrides)
        if not factors:
            return found
        return hashlib.sha256(json.dumps([found, sorted(factors.items())]).encode()).hexdigest()

    def play(self, overrides: Sequence[str], seed: int) -> Result:
        """The document of one run. Raises MoesimError."""
        return self.read(overrides).play(seed, _factors(overrides))


def within(data: Any, key: str) -> Any:
    """Of a dotted key in nested data. Raises KeyError."""
    for name in key.split("."):
        if not isinstance(data, dict):
            raise KeyError(key)
        data = data[name]
    return data


def open_subject(scenario: str | Path | Mapping[str, Any] | yamlfile.Document, fixed: Sequence[str] = ()) -> Subject:
    """A shipped name, a file, or plain data, with keys set. Raises BadInput."""
    if isinstance(scenario, yamlfile.Document):
        base = copy.deepcopy(scenario)
    elif isinstance(scenario, Mapping):
        base = yamlfile.Document(copy.deepcopy(dict(scenario)), "scenario")
    else:
        base = yamlfile.read_yaml(find(scenario))
    apply(base, fixed)
    mode = base.data.get("mode", "step")
    pick("mode", str(mode), KINDS, where=base.where(("mode",)))
    return Subject(str(base.data.get("name") or Path(base.source).stem), mode, base)


def _factors(overrides: Sequence[str]) -> dict[str, float]:
    """family -> factor of the keys of errors. Raises BadInput."""
    pairs = (text.removeprefix(ERROR).partition("=") for text in overrides if text.startswith(ERROR))
    return {family: _factor(family, value) for family, _, value in pairs}


def _factor(family: str, text: str) -> float:
    where = f"--set {ERROR}{family}"
    try:
        factor = float(text)
    except ValueError:
        raise BadInput(f"{text!r} is no number", where=where, way_out="1 is the median, 1.1 a tenth slower") from None
    if not 0.01 <= factor <= 100:
        raise BadInput(f"{text} is beyond any error of a cost", where=where, way_out="0.01 to 100")
    return factor


def _no_factors(factors: Mapping[str, float]) -> None:
    if factors:
        family = next(iter(factors))
        raise BadInput("errors of costs can be set where one step is played", where=f"{ERROR}{family}",
                       way_out="a scenario of mode: step")  # fmt: skip
