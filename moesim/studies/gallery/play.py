"""Plays rows of the gallery and says of each whether what its mechanism should do is what happened."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from moesim import shipped, yamlfile
from moesim.errors import BadInput, MoesimError
from moesim.studies.expression import values_of
from moesim.studies.gallery.row import BASE, FOLDER, Row, Side
from moesim.studies.load import find, load_data
from moesim.studies.run import run

ADDS_UP: Final = 1e-6  # of a step: by how much its parts may miss it
SIGNED: Final = "schedule_effect_s"  # the only part below zero; see studies/ladder.py
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


def document(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The document that `--json` prints."""
    states: list[str] = [one.state for one in verdicts]
    counts = {"rows_working": "works", "rows_failing": "fails", "rows_needing": "needs"}
    return {
        "metrics": {name: {"value": states.count(state), "unit": "1"} for name, state in counts.items()},
        "rows": {one.row.file.seed: one.to_json() for one in verdicts},
        "warnings": [],
    }


def play(row: Row, command: Command) -> Verdict:
    """Run base and variants, and check. Raises BadInput, DoesNotFit of what the row runs, with its file."""
    if row.file.needs:
        return Verdict(row, "needs")
    sides: dict[str, Values] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, side in row.sides.items():
            sides[name], unlawful = _side(row, name, side, command, folder)
            failures += unlawful
    values = _flat(sides)
    failures += _broken(row, values) + _directionless(row, sides)
    compared, missed = _published(row, values)
    return Verdict(row, "fails" if failures or missed else "works", (*failures, *missed), values, compared)


def _flat(sides: Mapping[str, Values]) -> Values:
    return {f"{name}.{metric}": value for name, found in sides.items() for metric, value in found.items()}


def _side(row: Row, name: str, side: Side, command: Command, folder: str) -> tuple[Values, list[str]]:
    """Means over seeds of a side's metrics, and which laws of every step it breaks."""
    try:
        if side.commands:
            return _commanded(side, command, folder), []
        found = [_stepped(row, name, side, seed) for seed in range(row.file.seeds)]
    except MoesimError as error:
        where = f"{row.document.where(('variants', name) if name != 'base' else ('base',))}: {error.where}"
        raise type(error)(error.what, where=where, way_out=error.way_out) from None
    unlawful = [f"{name}: {law}" for _, broken in found for law in broken]
    first = found[0][0]
    return {key: _mean([values.get(key) for values, _ in found]) for key in first}, unlawful


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return float(np.mean(given)) if len(given) == len(values) else None


def _commanded(side: Side, command: Command, folder: str) -> Values:
    """Metrics of the last verb."""
    found: Mapping[str, Any] = {}
    base = str(shipped.shipped(FOLDER, f"{BASE}.yaml"))
    for words in side.commands:
        found = command([word.replace("{tmp}", folder).replace("{base}", base) for word in words])
    if "metrics" not in found:
        raise BadInput("the last command prints no metrics", where=" ".join(side.commands[-1]), way_out="--json")
    return {name: value for name, value in values_of(found).items() if not isinstance(value, list)}


def _stepped(row: Row, name: str, side: Side, seed: int) -> tuple[Values, list[str]]:
    """A step's metrics, and the laws of every step that it breaks."""
    path = shipped.shipped(FOLDER, f"{BASE}.yaml") if side.scenario == BASE else find(side.scenario)
    data = copy.deepcopy(yamlfile.read_yaml(path).data)
    for key, value in side.set.items():
        _put(data, key, copy.deepcopy(value))
    result = run(load_data(data, f"{path.name} as {row.file.seed} {name}"), seed=seed, loop=True)
    return values_of(result.to_json()), _unlawful(result.breakdown, result.metrics["step_time_s"].value)


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


def _unlawful(parts: Mapping[str, float | None], step: float) -> list[str]:
    """Parts are none below zero, but the one with a sign, and add up to the step."""
    known = {name: value for name, value in parts.items() if value is not None}
    below = [f"{name} is {value:.3g} s" for name, value in known.items() if value < 0 and name != SIGNED]
    gap = abs(sum(known.values()) - step)
    return below + ([f"parts miss the step by {gap:.3g} s"] if gap > ADDS_UP * step else [])


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
