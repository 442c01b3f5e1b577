"""`sensitivity`: play a subject where a method asks for it, through the store of a sweep, and rank the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from moesim.errors import BadInput, pick
from moesim.step import lower
from moesim.studies.band import spreads
from moesim.studies.build import build
from moesim.studies.expression import Expression
from moesim.studies.sensitivity.method import Floats, Method
from moesim.studies.sensitivity.morris import Morris
from moesim.studies.sensitivity.sobol import Sobol
from moesim.studies.sensitivity.transport import Transport
from moesim.studies.shown import Rows, Tabular
from moesim.studies.sweeping import Axis, Plan, sweep
from moesim.studies.sweeping.axes import Interval
from moesim.studies.sweeping.executor import Executor
from moesim.studies.sweeping.store import Record
from moesim.studies.sweeping.subject import ERROR, SingleStep, Subject
from moesim.studies.sweeping.sweep import Engine, Tell
from moesim.version import __version__

METHODS: Final[dict[str, Method]] = {"morris": Morris(), "sobol": Sobol(), "transport": Transport()}
TAIL: Final = 0.005  # shares of a band beyond which nothing is drawn
DIGITS: Final = 6


@dataclass(frozen=True)
class Sensitivity(Tabular):
    """Of one quantity and its unit; values float64[runs]; indices: name -> float64[inputs]."""

    quantity: str
    unit: str
    method: str
    inputs: tuple[str, ...]
    values: Floats
    indices: dict[str, Floats]
    notes: tuple[str, ...]
    ran: int
    folder: Path

    @property
    def ranked(self) -> list[int]:
        """Numbers of inputs, the one that matters most first."""
        return [int(one) for one in np.argsort(-self.indices[METHODS[self.method].main], kind="stable")]

    def rows(self) -> Rows:
        """A row an input, most first."""
        return [
            {"name": self.inputs[one]} | {name: float(column[one]) for name, column in self.indices.items()}
            for one in self.ranked
        ]

    def title(self) -> str:
        """What matters, in one sentence."""
        main = self.indices[METHODS[self.method].main]
        if not np.ptp(self.values):
            return f"{self.quantity} is {self.values[0]:.4g} whatever the inputs are."
        first, weight = self.ranked[0], float(main.sum()) or 1.0
        idle = [self.inputs[one] for one in self.ranked if main[one] < 0.01 * weight]
        rest = f"; below 1 % of all indices: {', '.join(idle)}" if idle else ""
        return (
            f"{self.quantity} from {self.values.min():.4g} to {self.values.max():.4g}: {self.inputs[first]} matters "
            f"most ({METHODS[self.method].main} {main[first]:.3g}, {main[first] / weight:.0%} of all){rest}."
        )

    def said_with(self) -> Sequence[str]:
        """What the numbers rest on."""
        return self.notes

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints: each index under its name and its input's."""
        unit = "1" if METHODS[self.method].share else self.unit
        named = {
            f"{index}.{one}": {"value": float(column[number]), "unit": unit}
            for index, column in self.indices.items()
            for number, one in enumerate(self.inputs)
        }
        spread = {"low": float(self.values.min()), "high": float(self.values.max()), "mean": float(self.values.mean())}
        return {
            "metrics": {name: {"value": value, "unit": self.unit} for name, value in spread.items()} | named,
            "breakdown": {},
            "provenance": {
                "moesim": __version__, "kind": "sensitivity", "quantity": self.quantity, "method": self.method,
                "runs": len(self.values), "verdict": self.title(), "folder": str(self.folder),
            },
            "warnings": list(self.notes),
        }  # fmt: skip


@dataclass(frozen=True)
class LogNormal:
    """Of a factor with median 1; spread: standard deviation of its logarithm."""

    spread: float

    def at(self, share: float) -> float:
        """0 <= share <= 1 -> the factor; beyond TAIL it stays."""
        z = NormalDist().inv_cdf(min(max(share, TAIL), 1 - TAIL))
        return float(f"{math.exp(self.spread * z):.{DIGITS}g}")


def sensitivity(
    plan: Plan, quantity: str, method: str, number: int, *, bands: bool = False, folder: Path | None = None,
    jobs: int = 1, engine: Engine = "local", executor: Executor | None = None,
    tell: Tell = lambda there, of, ran: None,
) -> Sensitivity:  # fmt: skip
    """plan: a subject and the axes that are inputs; bands: and the error of each family of costs. Raises BadInput for
    runs that fail: an index over the others would be one of another question.
    """
    asked = pick("method", method, METHODS, where="--method")
    wanted = Expression(quantity, "--metric", quantity=True)
    draws = {axis.key: axis for axis in plan.axes} | (families(plan.subject, plan.seed) if bands else {})
    if not draws:
        raise BadInput("has no input", where="sensitivity", way_out="--set 'network.efficiency=0.5..1', or --bands")
    shares = asked.shares(len(draws), number, plan.seed)
    listed = tuple(tuple(_value(one, float(u)) for one, u in zip(draws.values(), row, strict=True)) for row in shares)
    axes = tuple(Axis(key, ()) for key in draws)
    asked_for = replace(plan, axes=axes, listed=listed)
    done = sweep(asked_for, jobs=jobs, engine=engine, folder=folder, executor=executor, tell=tell)
    if done.failed:
        point, one = done.failed[0]
        example = f"{', '.join(point.overrides)} ({one.record['reason']})"
        raise BadInput(f"{len(done.failed)} of {len(done.points)} runs have no number, e.g. {example}",
                       where="sensitivity", way_out="narrower inputs")  # fmt: skip
    values = np.array([float(wanted.value(one.numbers)) for one in done.kept])
    found, notes = asked.indices(shares, values, plan.seed), _notes(draws, done.warned)
    unit = _unit(quantity, done.kept[0].record)
    return Sensitivity(quantity, unit, method, tuple(draws), values, found, notes, done.ran, done.folder)


def families(subject: Subject, seed: int) -> dict[str, LogNormal]:
    """error.<family> -> its distribution, of a scenario that is one step. Raises BadInput for others."""
    played = subject.read(())
    if not isinstance(played, SingleStep):
        raise BadInput("errors of costs are drawn where one step is played", where="--bands",
                       way_out="a scenario of mode: step")  # fmt: skip
    with played.loaded.placing():
        built = build(played.loaded, seed)
        lower(built.plan, built.batches)
    return {f"{ERROR}{family}": LogNormal(sigma) for family, sigma in sorted(spreads(built).items()) if sigma > 0}


def _value(one: Axis | LogNormal, share: float) -> Any:
    if isinstance(one, Axis) and not isinstance(one.values, Interval):
        share = min(share, 1 - 1e-9)
    return one.at(share)


def _unit(quantity: str, record: Record) -> str:
    """That of a metric or a part of the breakdown; of arithmetic what it is made of, as a unit of its own."""
    if quantity in record["metrics"]:
        return str(record["metrics"][quantity]["unit"])
    return "s" if quantity in record["breakdown"] else f"of {quantity}"


def _notes(draws: dict[str, Any], warned: tuple[str, ...]) -> tuple[str, ...]:
    bands = [key.removeprefix(ERROR) for key, one in draws.items() if isinstance(one, LogNormal)]
    said = f"errors of {', '.join(bands)} are drawn log-normal, independent of each other, one factor a family and run"
    return ((said,) if bands else ()) + warned
