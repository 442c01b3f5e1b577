"""What `place` found: every strategy's Solution, the one that is picked, and in words whether it will pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from moesim.layout import Placement
from moesim.placement import PlacementProblem, Solution
from moesim.placement.clock import Ceilings
from moesim.placement.formats import Frame
from moesim.placement.migration import Migration
from moesim.studies.placing.evidence import Ceiling, Paired, Pays
from moesim.studies.placing.windows import DRIFT, HELD_OUT, Split
from moesim.studies.result import Metric
from moesim.studies.shown import Rows, Tabular
from moesim.units import show_bytes, show_seconds

SLIGHT: Final = 0.005  # gains below half a percent are not spoken of
CARRIES: Final = 0.5  # a plan carries over if it keeps half of its gain
FREE: Final = ("previous", "eplb", "eplb_hierarchical")  # what an operator has without any search
EQUAL: Final = 0.001  # step times so near to the least count as equal; the objective decides between them


@dataclass(frozen=True)
class Verdict:
    """Whether the best placement pays, beside `reference`, the best that is there for free; text: in words."""

    answer: Pays
    reference: str
    paired: Paired
    equal: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        interval = {"gain": self.paired.gain, "low": self.paired.low, "high": self.paired.high, "n": self.paired.count}
        return {"answer": self.answer, "reference": self.reference, **interval, "equal": list(self.equal),
                "text": self.text}  # fmt: skip


@dataclass(frozen=True)
class Outcome(Tabular):
    """solutions in the order they were asked for, the baseline first; `judge` names what the winner was picked by.

    migration: from the previous placement to the best one, None without one. frame: what files of the model leave out.
    barred: who cannot be picked, since a limit or the asked format stands against it, and why. beside: yardsticks that
    nobody asked for, which are shown and not picked. ceilings: of the step under the reference, None where none was
    played.
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
    beside: frozenset[str] = frozenset()
    ceilings: Ceilings | None = None

    def rows(self) -> Rows:
        """A row a strategy: objective on what it planned on and what it did not see, bound, step times in seconds."""
        kinds = dict.fromkeys(name for one in self.solutions for name in one.heldout)
        steps = dict.fromkeys(name for one in self.solutions for name in one.step_time)
        return [
            {"strategy": one.strategy, "picked": one is self.best, "train": one.objective, "bound": one.bound}
            | {name: one.heldout.get(name) for name in kinds}
            | {f"step_time_s {name}": one.step_time.get(name) for name in steps}
            for one in self.solutions
        ]

    def title(self) -> str:
        """The verdict."""
        return str(self.verdict())

    def said_with(self) -> Sequence[str]:
        """The warnings."""
        return self.warnings

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
        able = [one for one in self.solutions if one.strategy not in self.beside and one.strategy not in self.barred]
        least = min(self.score(one) for one in able)
        near = [one for one in able if self.score(one) <= least * (1 + EQUAL)]
        return min(near, key=lambda one: (self.judged(one), one.moves or 0))

    @property
    def reference(self) -> Solution:
        """The best of what is there for free: the previous placement, and what EPLB of the engine would do."""
        free = [one for one in self.solutions if one.strategy in FREE]
        return min(free or [self.baseline], key=self.score)

    @property
    def placement(self) -> Placement:
        """The best one's."""
        return self.best.placement

    def score(self, solution: Solution) -> float:
        """The value that the judge reads."""
        if self.judge == "step_time":
            return solution.step_time[self.split.decided_by]
        return self.judged(solution)

    def judged(self, solution: Solution) -> float:
        """The objective on the windows that decide."""
        return solution.heldout.get(self.split.decided_by, solution.objective)

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
        ahead = f"its {self.problem.objective.name} gains {planned:+z.1%} over {base.strategy}"
        what = f"{ahead} on the windows it was planned on"
        return f"{one.strategy} does not carry over: {what}, {told}"

    @property
    def unseen(self) -> bool:
        """Whether anything decides that no strategy has seen."""
        return bool(self.split.folds) or self.split.deciding is not self.split.train

    def equal(self) -> tuple[str, ...]:
        """Strategies that the evidence does not tell from the best one."""
        mine = self.evidence(self.best)
        pairs = [(one, Paired.of(self.evidence(one), mine)) for one in self.solutions if one is not self.best]
        return tuple(one.strategy for one, pair in pairs if pair.count > 1 and not pair.known)

    def evidence(self, solution: Solution) -> tuple[float, ...]:
        """Single values of what the judge reads, whose differences say how sure its mean is; empty where there are
        none.
        """
        return solution.step_each if self.judge == "step_time" else solution.each

    def verdict(self) -> Verdict:
        """Will it pay, beside what is there for free?"""
        best, free = self.best, self.reference
        paired = Paired.of(self.evidence(free), self.evidence(best))
        answer, text = self._judgement(best, free, paired)
        return Verdict(answer, free.strategy, paired, self.equal(), f"Will it pay? {text}")

    def _judgement(self, best: Solution, free: Solution, paired: Paired) -> tuple[Pays, str]:
        what = "simulated step time" if self.judge == "step_time" else self.problem.objective.name
        where = self._where()
        better = gain(self.score(free), self.score(best))
        side = "above" if better < 0 else "below"
        told = f"{best.strategy} is {abs(better):.1%} {side} {free.strategy} in {what} on {where}"
        if best is free or better < -SLIGHT:
            beside = f"nothing that was asked for ({best.strategy} is {-better:.1%} above)"
            asked = "nothing" if best is free else beside
            over = gain(self.score(self.baseline), self.score(free))
            gained = f", itself {over:.1%} below {self.baseline.strategy}" if over >= SLIGHT else ""
            return "no", f"No: by {what} on {where} {asked} beats {free.strategy}{gained}."
        if not self.unseen:
            return "not known", f"Not known: nothing was held out. There {told}. Record another load, or --holdout."
        if better < SLIGHT:
            apart = f"{best.strategy} and {free.strategy} are {abs(better):.1%} apart"
            return "hardly", f"Hardly: {apart} in {what} on {where}."
        if paired.count and not (paired.known and paired.gain > 0):
            says = "speaks against it" if paired.known else "leaves it open"
            thin = "is thin" if paired.count < 2 else f"{says} ({paired.words})"
            return "not known", f"Not known: {told}, but the evidence {thin}."
        drifted = self._drifted(free)
        if "ABOVE" in drifted:
            return "while the load stays", f"Only while the load stays what it was: {told}{drifted}.{self._payback()}"
        return "yes", f"Yes: {told}{drifted}.{self._payback()}"

    def _where(self) -> str:
        if self.split.folds:
            return f"{len(self.split.folds)} different loads, each left out once"
        names = {HELD_OUT: "held-out windows", DRIFT: "drift windows"}
        return names.get(self.split.deciding.name, "the training windows")

    def ceiling(self) -> Ceiling:
        """What is left above the reference, and how much of it the best one takes."""
        free = self.reference
        taken = gain(self.score(free), self.score(self.best))
        if self.ceilings is not None and self.judge == "step_time":
            real, even, silent, ideal = self.ceilings
            return Ceiling(free.strategy, gain(real, ideal), gain(real, even), gain(real, silent), taken)
        least = self.best.bound
        if self.problem.objective.name == "makespan":
            least = 1.0 if self.unseen else max(1.0, least)  # the bound is one on the windows that were planned on
        left = gain(self.score(free), least) if least else 0.0
        return Ceiling(free.strategy, left, left, None, taken)

    def _drifted(self, free: Solution) -> str:
        if DRIFT not in self.best.heldout or self.split.decided_by == DRIFT:
            return ""
        timed = self.judge == "step_time" and DRIFT in self.best.step_time
        base, best = ((one.step_time if timed else one.heldout)[DRIFT] for one in (free, self.best))
        kept = gain(base, best)
        return f"; after drift it is {abs(kept):.1%} {'below' if kept >= 0 else 'ABOVE'}"

    def _payback(self) -> str:
        if self.migration is None or self.judge != "step_time":
            return ""
        saved = self.score(self.baseline) - self.score(self.best)
        if saved <= 0:
            return ""
        size, time = show_bytes(self.migration.bytes), show_seconds(self.migration.seconds)
        back = f"paid back after {int(np.ceil(self.migration.seconds / saved)):,} step(s)"
        return f" Moving {len(self.migration.moves)} experts ({size}) takes {time}, {back}."

    def metrics(self) -> dict[str, Metric]:
        """Of the best placement, and of the baseline where it has them."""
        unit = "s" if self.problem.objective.name == "step_time" else "1"
        best, base = self.best, self.baseline
        found = {"objective": Metric(best.objective, unit), "baseline_objective": Metric(base.objective, unit)}
        if best.gap is not None:
            found |= {"bound": Metric(best.bound, unit), "gap": Metric(best.gap, "1")}
        found |= {f"objective_{name.replace(', ', '_').replace(' ', '_')}": Metric(value, unit)
                  for name, value in best.heldout.items()}  # fmt: skip
        if best.step_time:
            name = self.split.decided_by
            found |= {"step_time_s": Metric(best.step_time[name], "s")}
            found |= {"baseline_step_time_s": Metric(base.step_time[name], "s")}
        if DRIFT in best.step_time:
            found |= {"step_time_drift_s": Metric(best.step_time[DRIFT], "s")}
            found |= {"baseline_step_time_drift_s": Metric(base.step_time[DRIFT], "s")}
        found |= self._gains()
        if self.migration is not None:
            found |= {"moves": Metric(len(self.migration.moves), "experts")}
            found |= {"moved_bytes": Metric(self.migration.bytes, "B"), "stall_s": Metric(self.migration.stall_s, "s")}
        return found

    def _gains(self) -> dict[str, Metric]:
        """Over each placement that is there for free, and as a share of what perfect balance would gain."""
        mine, ceiling = self.score(self.best), self.ceiling()
        free = [one for one in self.solutions if one.strategy in FREE]
        found = {f"gain_over_{one.strategy}": Metric(gain(self.score(one), mine), "1") for one in free}
        share = {} if ceiling.share is None else {"share_of_ceiling": Metric(ceiling.share, "1")}
        return {**found, "ceiling": Metric(ceiling.most, "1"), **share}

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {
            "metrics": {name: {"value": one.value, "unit": one.unit} for name, one in self.metrics().items()},
            "breakdown": {},
            "verdict": self.verdict().to_json(),
            "ceiling": self.ceiling().to_json() | {"text": self.ceiling().words},
            "strategies": [_row(one) for one in self.solutions],
            "provenance": {**self.provenance, "best": self.best.strategy, "verdict": self.verdict().text},
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
        "each": list(one.each),
        "moves": one.moves,
        "seconds": one.seconds,
        "notes": list(one.notes),
    }
