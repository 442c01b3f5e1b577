"""What a sweep will run: a subject, axes and a design, from the command line or from a file, laid out as points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from moesim import yamlfile
from moesim.errors import BadInput, MoesimError
from moesim.studies.inputs import file_digest
from moesim.studies.load import find
from moesim.studies.sweeping.axes import Axis, axis_of, flow, one_each, override, read_axis
from moesim.studies.sweeping.design import Design, combine, size
from moesim.studies.sweeping.quality import Quality, read_quality
from moesim.studies.sweeping.sources import sources_digest
from moesim.studies.sweeping.subject import ERROR, Subject, open_subject, within
from moesim.version import __version__
from moesim.yamlfile import Section

KEY_DIGITS: Final = 24


class SweepFile(Section):
    """The keys of a file that asks for a sweep."""

    sweep: Literal[1] = Field(description="format version")
    scenario: str | dict[str, Any] = Field(description="a shipped scenario, a file, or its keys")
    set: dict[str, Any] = Field(default_factory=dict, description="keys of every point")
    over: dict[str, Any] = Field(default_factory=dict, description="key -> list of values, or low..high to draw from")
    design: Design = Field("cartesian", description="which values meet")
    points: int | None = Field(None, ge=1, description="random, latin: how many are drawn")
    seeds: int = Field(1, ge=1, le=1000, description="runs of each point")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="the first of them, and of what is drawn")
    quality: str | None = Field(
        None, description="CSV of what moesim does not predict (accuracy, loss, price) by the keys in its header"
    )


@dataclass(frozen=True)
class Point:
    """One run: overrides as `moesim run --set` takes them, the value of each axis, and the seed.

    key: of what it depends on; of a scenario that is refused, of its overrides; refused: why, with the exit code.
    """

    overrides: tuple[str, ...]
    values: tuple[Any, ...]
    seed: int
    key: str = ""
    refused: tuple[int, str] | None = None


@dataclass(frozen=True)
class Digests:
    """Contents of files, each read once."""

    known: dict[Path, str] = field(default_factory=dict)

    def __call__(self, path: Path) -> str:
        """sha256 of a file's content. Raises BadInput."""
        if path not in self.known:
            self.known[path] = file_digest(path)
        return self.known[path]


@dataclass(frozen=True)
class Plan:
    """All that was asked for."""

    subject: Subject
    axes: tuple[Axis, ...] = ()
    design: Design = "cartesian"
    number: int | None = None
    seeds: int = 1
    seed: int = 0
    listed: tuple[tuple[Any, ...], ...] | None = field(default=None, compare=False)  # instead of a design
    quality: Quality | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        one_each(self.axes)
        if self.listed is None:
            size(self.axes, self.design, self.number, self.seeds)
        if self.seeds > 1 and not self.subject.drawn:
            raise BadInput(f"{self.seeds} runs of each point would be equal: seeds change nothing in mode: "
                           f"{self.subject.mode}", where="seeds", way_out="leave it out")  # fmt: skip

    @property
    def keys(self) -> list[str]:
        """The axes'."""
        return [axis.key for axis in self.axes]

    def with_quality(self, path: Path | None) -> Plan:
        """Joined with a table of the user's, None for none. Raises BadInput."""
        if path is None:
            return self
        return replace(self, quality=read_quality(path, lambda key: bool(self._axis(key)) or self.subject.sets(key)))

    def setting(self, point: Point) -> dict[str, Any]:
        """key -> value at a point, of the keys that quality is joined by. Raises BadInput."""
        return {key: self._value(point, key) for key in self.quality.keys} if self.quality else {}

    def _axis(self, key: str) -> str | None:
        """The one that varies a key, by itself or with the whole section that holds it."""
        return next((name for name in self.keys if f"{key}.".startswith(f"{name}.")), None)

    def _value(self, point: Point, key: str) -> Any:
        name = self._axis(key)
        if name is None:
            return self.subject.value(key)
        value = point.values[self.keys.index(name)]
        try:
            return value if name == key else within(value, key[len(name) + 1 :])
        except KeyError:
            raise BadInput(f"{name}={flow(value)} says nothing of {key}, by which --quality is joined", where=name,
                           way_out=f"write {key} into each value of {name}") from None  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """sha256 of what is asked, as text; the files that scenarios name come on top."""
        asked = [
            __version__,
            sources_digest(),
            self.subject.mode,
            self.subject.base.data,
            self.design,
            self.number,
            self.seeds,
            self.seed,
        ]
        axes = [[axis.key, repr(axis.values)] for axis in self.axes]
        return hashlib.sha256(json.dumps([asked, axes, repr(self.listed)], sort_keys=True).encode()).hexdigest()

    @property
    def asked(self) -> int:
        """Points, equal ones counted each."""
        if self.listed is not None:
            return len(self.listed) * self.seeds
        return size(self.axes, self.design, self.number, self.seeds) * self.seeds

    def combinations(self) -> Iterator[tuple[Any, ...]]:
        """A value of each axis."""
        if self.listed is not None:
            return iter(self.listed)
        return combine(self.axes, self.design, self.number, self.seed)

    def points(self, digests: Digests) -> list[Point]:
        """All of them, checked. Raises BadInput where a key is not known, or every point is refused."""
        found: list[Point] = []
        refusals: list[MoesimError] = []
        for values in self.combinations():
            overrides = tuple(override(key, value) for key, value in zip(self.keys, values, strict=True))
            identity, error = self._identity(overrides, digests)
            if error is not None and "unknown key" in error.what:
                raise error
            refusals += [error] if error is not None else []
            for seed in range(self.seed, self.seed + self.seeds):
                key = point_key(identity, seed)
                refused = None if error is None else (error.exit_code, str(error))
                found.append(Point(overrides, values, seed, key, refused))
        if len(refusals) * self.seeds >= len(found) and refusals:
            raise refusals[0]
        if self.listed is not None:  # a row each, equal or not
            return found
        return list({point.key: point for point in reversed(found)}.values())[::-1]

    def _identity(self, overrides: tuple[str, ...], digests: Digests) -> tuple[str, MoesimError | None]:
        try:
            return self.subject.identity(overrides, digests), None
        except MoesimError as error:
            return json.dumps([self.subject.base.data, overrides], sort_keys=True), error


def point_key(identity: str, seed: int) -> str:
    """Of one run: hash of the resolved scenario, the version, what it is worked out by, and the seed."""
    made_of = [identity, __version__, sources_digest(), seed]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:KEY_DIGITS]


def read_plan(
    scenario: str, settings: Sequence[str] = (), *, design: Design | None = None, points: int | None = None,
    seeds: int | None = None, seed: int | None = None, quality: Path | None = None,
) -> Plan:  # fmt: skip
    """A scenario, or a file of a sweep, with `--set` options: one value sets a key, several make an axis. Options that
    are given take the place of the file's. Raises BadInput.
    """
    asked, where = _asked(scenario)
    given = [read_axis(text) for text in settings]
    one_each(given)
    fixed = {key: flow(value) for key, value in asked.set.items()}
    axes = {key: axis_of(key, values, where("over", key)) for key, values in asked.over.items()}
    for axis, text in zip(given, settings, strict=True):
        single = isinstance(axis.values, tuple) and len(axis.values) == 1 and not axis.key.startswith(ERROR)
        axes.pop(axis.key, None), fixed.pop(axis.key, None)
        if single:
            fixed[axis.key] = text.partition("=")[2]
        else:
            axes[axis.key] = axis
    subject = open_subject(_scenario(asked, where), [f"{key}={value}" for key, value in fixed.items()])
    plan = Plan(
        subject, tuple(axes.values()), design or asked.design, asked.points if points is None else points,
        asked.seeds if seeds is None else seeds, asked.seed if seed is None else seed,
    )  # fmt: skip
    return plan.with_quality(quality or (Path(asked.quality) if asked.quality else None))


def plan_of(
    scenario: str | Path | Mapping[str, Any], over: Mapping[str, Any], *, design: Design = "cartesian",
    points: int | None = None, seeds: int = 1, seed: int = 0, quality: Path | None = None,
) -> Plan:  # fmt: skip
    """A scenario, and key -> list of values, or an interval as text ("0.5..1"). Raises BadInput."""
    axes = tuple(axis_of(key, list(v) if isinstance(v, tuple) else v, f"over {key}") for key, v in over.items())
    return Plan(open_subject(scenario), axes, design, points, seeds, seed).with_quality(quality)


def _asked(scenario: str) -> tuple[SweepFile, Any]:
    """The file of a sweep, and where its keys stand; of a scenario one that asks for no more than it."""
    path = find(scenario)
    document = yamlfile.read_yaml(path)
    if "sweep" not in document.data:
        return SweepFile(sweep=1, scenario=scenario), lambda *keys: str(path)
    return document.validate(SweepFile), lambda *keys: document.where(keys)


def _scenario(asked: SweepFile, where: Any) -> Any:
    if isinstance(asked.scenario, str):
        return asked.scenario
    if not asked.scenario:
        raise BadInput("has no keys", where=where("scenario"), way_out="a shipped name, a file, or keys of one")
    return yamlfile.Document(asked.scenario, where("scenario"))
