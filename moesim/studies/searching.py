"""Search: points of a space, batch by batch, that an optimizer asks for until a budget is spent (extra `search`).

A space that the budget covers is played whole. In a larger one optuna asks: TPE (Bergstra et al., NeurIPS 2011; for
several goals Ozaki et al., GECCO 2020) or NSGA-II (Deb et al., IEEE Trans. Evolutionary Computation 6, 2002). Points
are a sweep's: an optimizer with the same seed that hears the same answers asks for the same points, so the same command
goes on where it was. A batch is as long on any number of processes. `exhaustive` says what asking was worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from moesim.errors import BadInput
from moesim.studies.fronts import Floats, Goal, as_goals, quality
from moesim.studies.sweeping import Axis, Plan, Sweep, sweep
from moesim.studies.sweeping.axes import Interval, flow
from moesim.studies.sweeping.sweep import Engine, Front, Tell, executing

Sampler = Literal["tpe", "nsga2"]
Values = tuple[Any, ...]  # of each axis
BATCH: Final = 12  # points asked for at once; NSGA-II's generation
PATIENCE: Final = 5  # times the budget that an optimizer may ask: what it asks for again costs nothing


@dataclass(frozen=True)
class Wanted:
    """plan: axes, in any design; budget: points at most; seed: the optimizer's; exhaustive: all points too, to say how
    much of their front the search alone finds.
    """

    plan: Plan
    goals: tuple[Goal, ...]
    budget: int = 60
    sampler: Sampler = "tpe"
    seed: int = 0
    exhaustive: bool = False


@dataclass(frozen=True)
class Search:
    """sweep: of all points that were played; searched: those that the optimizer asked for, None where all were played
    without one; space: points there are, None with an interval; share: of the hypervolume of all points, what those
    that were searched reach, None where not all are known.
    """

    wanted: Wanted
    sweep: Sweep
    front: Front
    searched: int | None
    space: int | None
    share: float | None

    def said(self) -> str:
        """How far the search went."""
        of = "endlessly many" if self.space is None else f"{self.space:,}"
        if self.searched is None:
            return f"all {of} points played"
        text = f"{self.searched} of {of} points played, as {self.wanted.sampler} asked"
        if self.share is None:
            return text
        return f"{text}; they reach {self.share:.2%} of the hypervolume of all {of}, which were played too"

    def to_json(self) -> dict[str, Any]:
        """As a sweep's, with what was searched."""
        document = self.sweep.to_json(self.front)
        figures = {"points_searched": self.searched, "space_points": self.space, "hypervolume_share": self.share}
        document["metrics"] |= {k: {"value": v, "unit": "1"} for k, v in figures.items() if v is not None}
        document["provenance"] |= {"kind": "search", "sampler": self.wanted.sampler if self.searched else "all"}
        return document


def search(
    wanted: Wanted, *, jobs: int = 1, engine: Engine = "local", folder: Path | None = None,
    tell: Tell = lambda there, of, ran: None,
) -> Search:  # fmt: skip
    """jobs, engine: see `executor_of`. Raises BadInput, TryAgain, ModuleNotFoundError without optuna where a space is
    larger than the budget.
    """
    plan, space = _checked(wanted), _size(wanted.plan.axes)

    with executing(engine, jobs) as executor:

        def play(listed: Sequence[Values] | None) -> Sweep:
            whole = replace(plan, listed=None if listed is None else tuple(listed), design="cartesian", number=None)
            return sweep(
                whole, folder=folder, executor=executor, tell=tell, wanted=[goal.metric for goal in wanted.goals]
            )

        if space is not None and space <= wanted.budget:
            found = play(None)
            return Search(wanted, found, found.front(wanted.goals), None, space, None)
        asked = _asked(wanted, play)
        if not wanted.exhaustive:
            found = play(asked)
            return Search(wanted, found, found.front(wanted.goals), len(asked), space, None)
        some, every = _answers(play(asked), wanted.goals), play(None)
        box = _answers(every, wanted.goals)
    known = [[row for row in rows if row is not None] for rows in (some, box)]
    best = quality(_rows(known[1])).hypervolume
    share = quality(_rows(known[0]), _rows(known[1])).hypervolume / best if best and known[0] else None
    return Search(wanted, every, every.front(wanted.goals), len(asked), space, share)


def _asked(wanted: Wanted, play: Callable[[Sequence[Values]], Sweep]) -> list[Values]:
    """Points in the order in which the optimizer asked for them, each once. A point that fails counts as the worst
    answer so far.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize"] * len(wanted.goals), sampler=_sampler(optuna, wanted))
    order: dict[str, Values] = {}
    for _ in range(PATIENCE * -(-wanted.budget // BATCH)):
        trials = [study.ask() for _ in range(min(BATCH, wanted.budget - len(order)))]
        points = [tuple(_value(trial, axis) for axis in wanted.plan.axes) for trial in trials]
        order |= {flow(list(point)): point for point in points if flow(list(point)) not in order}
        answers = dict(zip(order, _answers(play(list(order.values())), wanted.goals), strict=True))
        worst = _rows([row for row in answers.values() if row is not None]).min(axis=0)
        for trial, point in zip(trials, points, strict=True):
            row = answers[flow(list(point))]
            study.tell(trial, [float(number) for number in (worst if row is None else row)])
        if len(order) >= wanted.budget:
            break
    return list(order.values())


def _sampler(optuna: Any, wanted: Wanted) -> Any:
    if wanted.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=BATCH, seed=wanted.seed)
    return optuna.samplers.TPESampler(seed=wanted.seed, constant_liar=True)


def _value(trial: Any, axis: Axis) -> Any:
    """Numbers in order are asked for as a share of their range, anything else as one of a list."""
    if isinstance(axis.values, Interval) or _ordered(axis.values):
        return axis.at(trial.suggest_float(axis.key, 0.0, math.nextafter(1.0, 0.0)))
    return axis.values[trial.suggest_categorical(axis.key, range(len(axis.values)))]


def _ordered(values: Sequence[Any]) -> bool:
    plain = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return plain and list(values) == sorted(values)


def _answers(found: Sweep, goals: Sequence[Goal]) -> list[Floats | None]:
    """float64[goals] of each point, all to be maximised; None where it failed. Raises BadInput for unknown metrics."""
    columns = [found.values(goal.metric, "--front") for goal in goals]
    rows = zip(*columns, strict=True)
    return [None if None in row else as_goals([[one] for one in row], goals)[0] for row in rows]


def _rows(rows: Sequence[Floats]) -> Floats:
    """float64[goals] each -> float64[n, goals]. Raises BadInput where there are none."""
    if not rows:
        raise BadInput("no point that was asked for has numbers", where="search", way_out="other values of --set")
    return np.array(rows)


def _size(axes: Sequence[Axis]) -> int | None:
    """Points of all combinations; None with an interval."""
    sizes = [0 if isinstance(axis.values, Interval) else len(axis.values) for axis in axes]
    return math.prod(sizes) if all(sizes) else None


def _checked(wanted: Wanted) -> Plan:
    """Raises BadInput for a question that has no space."""
    if not wanted.plan.axes:
        raise BadInput("has no axis", where="search", way_out="--set key=1,2,4 or --set key=0.5..1")
    if wanted.exhaustive and _size(wanted.plan.axes) is None:
        raise BadInput("an interval has no end of points", where="--exhaustive", way_out="lists of values")
    return wanted.plan
