"""What `place` found: every strategy's Solution, the one that is picked, and in words whether it will pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from moesim.layout import Placement
from moesim.placement import PlacementProblem, Solution
from moesim.placement.formats import Frame
from moesim.placement.migration import Migration
from moesim.studies.placing.windows import DRIFT, HELD_OUT, Split
from moesim.studies.result import Metric
from moesim.units import show_bytes, show_seconds

SLIGHT: Final = 0.005  # gains below half a percent are not spoken of
CARRIES: Final = 0.5  # a plan carries over if it keeps half of its gain
EQUAL: Final = 0.001  # step times so near to the least count as equal; the objective decides between them


@dataclass(frozen=True)
class Outcome:
    """solutions in the order they were asked for, the baseline first; `judge` names what the winner was picked by.

    migration: from the previous placement to the best one, None without one. frame: what files of the model leave out.
    barred: who cannot be picked, since a limit or the asked format stands against it, and why.
    """

    problem: PlacementProblem
    split: Split
    solutions: tuple[Solution, ...]
    judge: str
    frame: Frame
    provenance: Mapping[str, Any]
    migration: Migration | None = None
    barred: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search."""
        return self.solutions[-1].interrupted

    @property
    def baseline(self) -> Solution:
        """What stands now, or experts in order."""
        return self.solutions[0]

    @property
    def best(self) -> Solution:
        """Least by the judge; of those within EQUAL the least objective, then the fewest moves, then the first."""
        able = [one for one in self.solutions if one.strategy not in self.barred]
        least = min(self.score(one) for one in able)
        near = [one for one in able if self.score(one) <= least * (1 + EQUAL)]
        return min(near, key=lambda one: (self.judged(one), one.moves or 0))

    @property
    def placement(self) -> Placement:
        """The best one's."""
        return self.best.placement

    def score(self, solution: Solution) -> float:
        """The value that the judge reads."""
        if self.judge == "step_time":
            return solution.step_time[self.split.deciding.name]
        return self.judged(solution)

    def judged(self, solution: Solution) -> float:
        """The objective on the windows that decide."""
        return solution.heldout.get(self.split.deciding.name, solution.objective)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not carry over, what was cut short, and what the numbers rest on."""
        found = [f"{one.strategy}: {note}" for one in self.solutions for note in one.notes]
        found += [f"{name} cannot be picked: {why}" for name, why in self.barred.items()]
        return (*self.notes, *found, *(text for one in self.solutions[1:] if (text := self._carries(one))))

    def _carries(self, one: Solution) -> str:
        base = self.baseline
        planned = gain(base.objective, one.objective)
        names = [name for name in (HELD_OUT, DRIFT) if name in one.heldout]
        later = {name: gain(base.heldout[name], one.heldout[name]) for name in names}
        lost = {name: value for name, value in later.items() if value < CARRIES * planned}
        if planned < SLIGHT or not lost:
            return ""
        told = ", ".join(f"{value:+z.1%} on {name} windows" for name, value in lost.items())
        what = (
            f"its {self.problem.objective} gains {planned:+z.1%} over {base.strategy} on the windows it was planned on"
        )
        return f"{one.strategy} does not carry over: {what}, {told}"

    def verdict(self) -> str:
        """Will it pay? One or two sentences."""
        best, base = self.best, self.baseline
        where = "held-out windows" if HELD_OUT in self.split.judged else "the training windows (none were held out)"
        what = "simulated step time" if self.judge == "step_time" else self.problem.objective
        if best is base:
            return f"Will it pay? No: by {what} on {where} nothing beats {base.strategy}."
        better = gain(self.score(base), self.score(best))
        told = f"{best.strategy} is {better:.1%} below {base.strategy} in {what} on {where}"
        if better < SLIGHT:
            apart = f"{best.strategy} and {base.strategy} are {abs(better):.1%} apart"
            return f"Will it pay? Hardly: {apart} in {what} on {where}."
        drifted = self._drifted()
        answer = "Only while the load stays what it was" if "ABOVE" in drifted else "Yes"
        return f"Will it pay? {answer}: {told}{drifted}.{self._payback()}"

    def _drifted(self) -> str:
        if DRIFT not in self.best.heldout:
            return ""
        timed = DRIFT in self.best.step_time
        base, best = ((one.step_time if timed else one.heldout)[DRIFT] for one in (self.baseline, self.best))
        kept = gain(base, best)
        return f"; after drift it is {abs(kept):.1%} {'below' if kept >= 0 else 'ABOVE'}"

    def _payback(self) -> str:
        if self.migration is None or self.judge != "step_time":
            return ""
        saved = self.score(self.baseline) - self.score(self.best)
        size, time = show_bytes(self.migration.bytes), show_seconds(self.migration.seconds)
        back = f"paid back after {int(np.ceil(self.migration.seconds / saved)):,} step(s)"
        return f" Moving {len(self.migration.moves)} experts ({size}) takes {time}, {back}."

    def metrics(self) -> dict[str, Metric]:
        """Of the best placement, and of the baseline where it has them."""
        unit = "s" if self.problem.objective == "step_time" else "1"
        best, base = self.best, self.baseline
        found = {"objective": Metric(best.objective, unit), "baseline_objective": Metric(base.objective, unit)}
        if best.gap is not None:
            found |= {"bound": Metric(best.bound, unit), "gap": Metric(best.gap, "1")}
        found |= {f"objective_{name.replace(', ', '_').replace(' ', '_')}": Metric(value, unit)
                  for name, value in best.heldout.items()}  # fmt: skip
        if best.step_time:
            name = self.split.deciding.name
            found |= {"step_time_s": Metric(best.step_time[name], "s")}
            found |= {"baseline_step_time_s": Metric(base.step_time[name], "s")}
        if DRIFT in best.step_time:
            found |= {"step_time_drift_s": Metric(best.step_time[DRIFT], "s")}
            found |= {"baseline_step_time_drift_s": Metric(base.step_time[DRIFT], "s")}
        if self.migration is not None:
            found |= {"moves": Metric(len(self.migration.moves), "experts")}
            found |= {"moved_bytes": Metric(self.migration.bytes, "B"), "stall_s": Metric(self.migration.stall_s, "s")}
        return found

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {
            "metrics": {name: {"value": one.value, "unit": one.unit} for name, one in self.metrics().items()},
            "breakdown": {},
            "strategies": [_row(one) for one in self.solutions],
            "provenance": {**self.provenance, "best": self.best.strategy, "verdict": self.verdict()},
            "warnings": list(self.warnings),
        }


def gain(base: float, value: float) -> float:
    """How much less `value` is, relative to `base`."""
    return 1 - value / base if base else 0.0


def _row(one: Solution) -> dict[str, Any]:
    return {
        "strategy": one.strategy,
        "objective": one.objective,
        "bound": one.bound if one.gap is not None else None,
        "bound_kind": one.bound_kind,
        "gap": one.gap,
        "judged": dict(one.heldout),
        "step_time_s": dict(one.step_time),
        "moves": one.moves,
        "seconds": one.seconds,
        "notes": list(one.notes),
    }
