"""Plays rows of the gallery and says of each whether what its mechanism should do is what happened."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from moesim import shipped, yamlfile
from moesim.errors import BadInput, MoesimError
from moesim.studies.expression import values_of
from moesim.studies.gallery.laws import parts, unlawful
from moesim.studies.gallery.row import FOLDER, OURS, Row, Side, own_files
from moesim.studies.load import SERVE, find, load_data
from moesim.studies.run import run
from moesim.studies.serving import load_serving, run_serving

Values = dict[str, float | None]
Command = Callable[[Sequence[str]], Mapping[str, Any]]  # runs a verb -> its JSON document, {} where it prints none


@dataclass(frozen=True)
class Verdict:
    """Of a row: what each expression came to, published figures beside the row's own, and why it fails."""

    row: Row
    state: Literal["works", "fails", "needs"]
    failures: tuple[str, ...] = ()
    values: Mapping[str, float | None] = field(default_factory=dict)
    published: tuple[tuple[str, float, float], ...] = ()
    cpu_s: float = 0.0  # of this process and those that it started

    @property
    def seen(self) -> str:
        """Numbers that the expectations read."""
        names = sorted({name for one in self.row.expressions("expect") for name in one.names})
        shown = [(name, self.values.get(name)) for name in names]
        return ", ".join(f"{name} {value:.4g}" for name, value in shown if isinstance(value, (int, float)))

    def to_json(self) -> dict[str, Any]:
        """One entry of the document."""
        file = self.row.file
        return {
            "title": file.title,
            "state": self.state,
            "needs": list(file.needs),
            "failures": list(self.failures),
            "values": {name: value for name, value in self.values.items() if isinstance(value, (int, float))},
            "published": [{"quantity": q, "predicted": p, "published": v} for q, p, v in self.published],
            "not_simulated": list(file.not_simulated),
        }


def document(verdicts: Sequence[Verdict], *, timed: bool = False) -> dict[str, Any]:
    """The document that `--json` prints; `timed`: with seconds, which differ from run to run."""
    states: list[str] = [one.state for one in verdicts]
    counts = {"rows_working": "works", "rows_failing": "fails", "rows_needing": "needs"}
    metrics: dict[str, Any] = {name: {"value": states.count(state), "unit": "1"} for name, state in counts.items()}
    rows = {one.row.file.seed: one.to_json() for one in verdicts}
    if timed:
        spent = [one.cpu_s for one in verdicts]
        metrics |= {"cpu_s": {"value": sum(spent), "unit": "s"}, "slowest_cpu_s": {"value": max(spent), "unit": "s"}}
        for one in verdicts:
            rows[one.row.file.seed]["cpu_s"] = one.cpu_s
    return {"metrics": metrics, "rows": rows, "warnings": []}


def timely(row: Row, command: Command, within: float | None) -> Verdict:
    """As `play`. A row that takes more CPU seconds than `within` is played once more: by now it is compiled, and what
    fails then is its own.
    """
    first = play(row, command)
    if within is None or first.cpu_s <= within:
        return first
    again = play(row, command)
    if again.cpu_s <= within:
        return again
    late = f"takes {again.cpu_s:.1f} s of CPU time, not {within:g} s"
    return replace(again, state="fails", failures=(*again.failures, late))


def play(row: Row, command: Command) -> Verdict:
    """Run base and variants, and check. Raises BadInput, DoesNotFit of what the row runs, with its file."""
    if row.file.needs:
        return Verdict(row, "needs")
    began = sum(os.times()[:4])
    sides: dict[str, Values] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, side in row.sides.items():
            sides[name], unlawful = _side(row, name, side, command, folder)
            failures += unlawful
    values = _flat(sides)
    failures += _broken(row, values) + _directionless(row, sides)
    compared, missed = _published(row, values)
    state: Literal["works", "fails"] = "fails" if failures or missed else "works"
    return Verdict(row, state, (*failures, *missed), values, compared, sum(os.times()[:4]) - began)


def _flat(sides: Mapping[str, Values]) -> Values:
    return {f"{name}.{metric}": value for name, found in sides.items() for metric, value in found.items()}


def _side(row: Row, name: str, side: Side, command: Command, folder: str) -> tuple[Values, list[str]]:
    """Means over seeds of a side's metrics, and which laws of every step it breaks."""
    try:
        if side.commands:
            return _commanded(name, side, command, folder)
        found = [_played(row, name, side, seed) for seed in range(row.file.seeds)]
    except MoesimError as error:
        where = f"{row.document.where(('variants', name) if name != 'base' else ('base',))}: {error.where}"
        raise type(error)(error.what, where=where, way_out=error.way_out) from None
    unlawful = [f"{name}: {law}" for _, broken in found for law in broken]
    first = found[0][0]
    return {key: _mean([values.get(key) for values, _ in found]) for key in first}, unlawful


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return float(np.mean(given)) if len(given) == len(values) else None


def _commanded(name: str, side: Side, command: Command, folder: str) -> tuple[Values, list[str]]:
    """Metrics of the last verb, and the law that its parts break, where it plays a step."""
    found: Mapping[str, Any] = {}
    places = {"{tmp}": folder} | {f"{{{own[len(OURS) :]}}}": str(path) for own, path in own_files().items()}
    for words in side.commands:
        found = command([_filled(word, places) for word in words])
    if "metrics" not in found:
        raise BadInput("the last command prints no metrics", where=" ".join(side.commands[-1]), way_out="--json")
    values = {key: value for key, value in values_of(found).items() if not isinstance(value, list)}
    step, breakdown = values.get("step_time_s"), found.get("breakdown")
    broken = parts(breakdown, step) if breakdown and step is not None else ()
    return values, [f"{name}: {law}" for law in broken]


def _filled(word: str, places: Mapping[str, str]) -> str:
    """An argument with the paths that its braces stand for."""
    for brace, path in places.items():
        word = word.replace(brace, path)
    return word


def _played(row: Row, name: str, side: Side, seed: int) -> tuple[Values, list[str]]:
    """Metrics of a step, or of served requests, and the laws that it breaks."""
    ours = side.scenario.startswith(OURS)
    path = shipped.shipped(FOLDER, f"{side.scenario}.yaml") if ours else find(side.scenario)
    data = copy.deepcopy(yamlfile.read_yaml(path).data)
    for key, value in side.set.items():
        _put(data, key, copy.deepcopy(value))
    source = f"{path.name} as {row.file.seed} {name}"
    if data.get("mode") != SERVE:
        result = run(load_data(data, source), seed=seed, loop=True)
        return values_of(result.to_json()), unlawful(result)
    served = run_serving(load_serving(yamlfile.Document(data, source)), seed=seed)
    return values_of(served.to_json()), list(parts(served.breakdown, served.metrics["mean_e2el_ms"].value / 1e3))


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; null takes it away. Raises BadInput where a part of it holds no keys."""
    *outer, last = key.split(".")
    for part in outer:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise BadInput(f"{part!r} holds no keys", where=key)
    if value is None:
        data.pop(last, None)
    else:
        data[last] = value


def _broken(row: Row, values: Values) -> list[str]:
    """Expectations and laws that do not hold, with the numbers."""
    both = row.expressions("expect") + row.expressions("law")
    return [one.failure(values) for one in both if not one.value(values)]


def _directionless(row: Row, sides: Mapping[str, Values]) -> list[str]:
    """Variants that base could be swapped with, and every expectation would still hold: no direction is checked."""
    found = []
    for name in row.file.variants:
        swapped = _flat({**sides, "base": sides[name], name: sides["base"]})
        readable = [
            one for one in row.expressions("expect") if all(swapped.get(metric) is not None for metric in one.names)
        ]
        if all(one.value(swapped) for one in readable):
            found.append(f"no expectation fails when {name} and base are swapped")
    return found


def _published(row: Row, values: Values) -> tuple[tuple[tuple[str, float, float], ...], list[str]]:
    """(quantity, predicted, published), and those that are further apart than their tolerance."""
    compared, missed = [], []
    for one, quantity in zip(row.file.published, row.quantities(), strict=True):
        found = float(quantity.value(values))
        compared.append((one.quantity, found, one.value))
        if one.tolerance is not None and abs(found - one.value) > one.tolerance * abs(one.value):
            missed.append(f"{one.quantity} is {found:.4g}, published {one.value:g} (tolerance {one.tolerance:.0%})")
    return tuple(compared), missed
