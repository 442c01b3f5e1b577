"""Paired comparison: both scenarios with the same seeds, the difference with its 95 % interval, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from moesim.errors import BadInput
from moesim.studies.interval import CONFIDENCE, half_width
from moesim.studies.load import TRAIN, Named, Overrides, load
from moesim.studies.moved import moved
from moesim.studies.run import run
from moesim.studies.serving import is_serving, load_serving, run_serving
from moesim.studies.shown import Rows, Tabular
from moesim.studies.training import is_training, load_training, run_training
from moesim.studies.verdict import serve_verdict, step_verdict, train_verdict

Document = Mapping[str, Any]
TIME: Final = "step_time_s"
SAME: Final = 1e-9  # of a step's work, within which all have the same


@dataclass(frozen=True)
class Difference:
    """Means of base and variant over the seeds; `value` is the mean paired difference, low .. high its interval."""

    value: float
    unit: str
    base: float
    variant: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison(Tabular):
    """The documents of both over the seeds, and the paired difference of every number that both have."""

    names: tuple[str, str]
    base: tuple[Document, ...]
    variant: tuple[Document, ...]
    metrics: Mapping[str, Difference]
    breakdown: Mapping[str, Difference | None]
    notes: tuple[str, ...] = ()

    def verdict(self) -> str:
        """What it comes to, and what moved."""
        return self._judged() + moved(self.breakdown, self.metrics, (self.base, self.variant))

    def _judged(self) -> str:
        a, b = self.names
        names = f"{b} (with the changes)" if a == b else b
        if self.base[0]["provenance"].get("kind") == TRAIN:
            runs = [one["provenance"].get("run") for one in (self.base[0], self.variant[0])]
            expected = tuple(run["daly_run_s"] for run in runs if run) if all(runs) else ()
            return train_verdict(a, names, self.metrics, expected, len(self.base))
        judge = step_verdict if "step_time_s" in self.metrics else serve_verdict
        return judge(a, names, self.metrics, len(self.base))

    def rows(self) -> Rows:
        """A row a metric."""
        return [{"name": name, **asdict(one)} for name, one in self.metrics.items()]

    def title(self) -> str:
        """The verdict."""
        return self.verdict()

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints: the values are differences, with both means beside them."""
        said = (text for one in (*self.base, *self.variant) for text in one["warnings"])
        warnings = dict.fromkeys((*self.notes, *said))
        return {
            "metrics": {name: asdict(one) for name, one in self.metrics.items()},
            "breakdown": {key: one.value if one else None for key, one in self.breakdown.items()},
            "provenance": {
                "verdict": self.verdict(),
                "seeds": len(self.base),
                "confidence": CONFIDENCE,
                "base": self.base[0]["provenance"],
                "variant": self.variant[0]["provenance"],
            },
            "warnings": list(warnings),
        }


def compare(
    base: Named, variant: Named | None = None, seeds: int = 5, *, overrides: Overrides = ()
) -> Comparison:  # fmt: skip
    """Run both with seeds 0 .. seeds - 1; each seed picks the same requests and, of steps, the same errors for both
    where both run one device's kernels, on one device.

    Each is what `load` takes, or both serve requests, or both are pipelined training steps, played once, of whose runs
    the trials are pairs; `overrides` are the variant's, and without a variant they change the base. The interval is
    Student's over the paired differences. Raises BadInput for fewer than 2 seeds.
    """
    if seeds < 2:
        raise BadInput(f"{seeds} seed(s) give no interval", way_out="--seeds 5")
    other = base if variant is None else variant
    kinds = [_kind(base, ()), _kind(other, overrides)]
    if kinds[0] != kinds[1]:
        raise BadInput(f"one {kinds[0]}, the other {kinds[1]}", way_out="two scenarios of one mode")
    player = PLAYERS[kinds[0]]
    (one, first), (two, second) = (player(*asked, seeds) for asked in ((base, ()), (other, overrides)))
    if kinds[0] == STEPS and (kernels := _kernels(second[0])) != _kernels(first[0]):
        two, second = stepped(other, overrides, seeds, kernels)
    pairs = min(len(first), len(second))
    first, second = first[:pairs], second[:pairs]
    shared = [name for name in first[0]["metrics"] if name in second[0]["metrics"]]
    return Comparison(
        names=(one, two),
        base=first,
        variant=second,
        metrics=_as_sure({name: _metric(name, first, second) for name in shared}, (*first, *second)),
        breakdown={key: _rung(key, first, second) for key in first[0]["breakdown"]},
        notes=_other_requests(base, other, overrides) if kinds[0] == SERVES else (),
    )


def stepped(
    scenario: Named, overrides: Overrides, seeds: int, apart: str = ""
) -> tuple[str, tuple[Document, ...]]:  # fmt: skip
    """A step's name and documents, seed by seed; apart: whose errors are not those of the other."""
    loaded = load(scenario, overrides)
    runs = (run(loaded, seed=seed, draw_errors=True, apart=apart, loop=True) for seed in range(seeds))
    return loaded.scenario.name, tuple(one.to_json() for one in runs)


def served(scenario: Named, overrides: Overrides, seeds: int) -> tuple[str, tuple[Document, ...]]:
    """The same of a scenario that serves requests; `seeds` of its own does not count here."""
    loaded = load_serving(scenario, overrides)
    alone = replace(loaded, scenario=loaded.scenario.model_copy(update={"seeds": 1}))
    return alone.scenario.name, tuple(run_serving(alone, seed=seed).to_json() for seed in range(seeds))


def trained(scenario: Named, overrides: Overrides, seeds: int) -> tuple[str, tuple[Document, ...]]:
    """The same of a pipelined training step, once, as nothing of it is drawn; of a run, trial by trial."""
    loaded = load_training(scenario, overrides)
    return loaded.scenario.name, run_training(loaded).by_trial()


SERVES, TRAINS, STEPS = "serves requests", "is a pipelined training step", "is a step"
PLAYERS: Final = {SERVES: served, TRAINS: trained, STEPS: stepped}


def _other_requests(base: Named, other: Named, overrides: Overrides) -> tuple[str, ...]:
    """Said where the two do not serve the same: most of what moves is then what is asked for."""
    asked = [load_serving(*one).scenario.requests for one in ((base, ()), (other, overrides))]
    keys = [key for key, value in asked[0] if getattr(asked[1], key) != value]
    if not keys:
        return ()
    named = ", ".join(f"requests.{key}" for key in keys)
    return (f"the two serve different requests ({named}); --both sets a key of base and variant",)


def _kernels(document: Document) -> str:
    """Whose kernels a step ran, and on which device where they were carried to it: errors of two are independent."""
    told = document["provenance"]
    return f"{told['costs']} {told.get('borrowed', '')}"


def _kind(scenario: Named, overrides: Overrides) -> str:
    if is_serving(scenario, overrides):
        return SERVES
    return TRAINS if is_training(scenario, overrides) else STEPS


def _metric(name: str, base: Sequence[Document], variant: Sequence[Document]) -> Difference:
    columns = [[one["metrics"][name]["value"] for one in side] for side in (base, variant)]
    return paired(columns[0], columns[1], base[0]["metrics"][name]["unit"])


def _as_sure(metrics: Mapping[str, Difference], documents: Sequence[Document]) -> dict[str, Difference]:
    """A rate of the same work in all steps is that work over their time, and differs for certain where the time does:
    its interval is the time's, as rates. Student's of each by itself may say both yes and no.
    """
    time = metrics.get(TIME)
    if time is None or time.base + time.low <= 0:
        return dict(metrics)
    seconds, found = np.array([one["metrics"][TIME]["value"] for one in documents]), dict(metrics)
    for name, one in metrics.items():
        work = seconds * [document["metrics"][name]["value"] for document in documents]
        if work[0] > 0 and np.ptp(work) < SAME * work[0]:
            low, high = (work[0] / (time.base + more) - work[0] / time.base for more in (time.high, time.low))
            found[name] = replace(one, low=float(min(low, one.value)), high=float(max(high, one.value)))
    return found


def _rung(key: str, base: Sequence[Document], variant: Sequence[Document]) -> Difference | None:
    """None where one of them did not play it."""
    columns = [[one["breakdown"].get(key) for one in side] for side in (base, variant)]
    return None if None in (*columns[0], *columns[1]) else paired(columns[0], columns[1], "s")


def paired(base: Sequence[float], variant: Sequence[float], unit: str) -> Difference:
    """Two columns of n paired values -> Student's interval of their mean difference; one alone is exact."""
    n = len(base)
    differences = np.subtract(variant, base)
    mean = math.fsum(differences) / n
    half = half_width(differences) if n > 1 else 0.0
    return Difference(mean, unit, math.fsum(base) / n, math.fsum(variant) / n, mean - half, mean + half)
