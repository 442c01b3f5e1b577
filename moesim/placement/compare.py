"""`compare`: strategies on one problem, side by side on the windows planned on and on windows none of them saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from moesim.placement.problem import PlacementProblem
from moesim.placement.solution import Solution
from moesim.placement.solve import solve
from moesim.placement.windows import Windows


@dataclass(frozen=True)
class Comparison:
    """The problem that was planned for, and a Solution a strategy, in the order asked for."""

    problem: PlacementProblem
    solutions: tuple[Solution, ...]

    @property
    def best(self) -> Solution:
        """Least simulated time on the first windows held out, or least objective there where none was played."""
        return min(self.solutions, key=_last_word)

    def __str__(self) -> str:
        """One table: strategy, train, bound, gap, each held-out value, step time, moves, seconds."""
        first = self.solutions[0]
        head = ["strategy", "train", "bound", "gap", *first.heldout, *(f"step on {w} (s)" for w in first.step_time)]
        rows = [[*head, "moves", "seconds"], *(_cells(one) for one in self.solutions)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def compare(
    problem: PlacementProblem, strategies: Sequence[str], holdout: float | Mapping[str, Windows] = 0.3, *,
    simulate: bool = True, time_limit: float | None = None, seed: int = 0,
) -> Comparison:  # fmt: skip
    """holdout: the share of the problem's last windows that is held out, or windows by name (drift, decode ...).

    Where the problem has a clock and `simulate` holds, each placement's step is played on the held-out windows.
    Raises BadInput, DoesNotFit.
    """
    if isinstance(holdout, Mapping):
        judged = tuple(replace(windows, name=name) for name, windows in holdout.items())
    else:
        train, later = problem.train.hold_out(holdout)
        problem, judged = problem.with_train(train), (later,)
    played = judged if simulate and problem.clock is not None else ()
    found = [solve(problem, name, time_limit, seed, heldout=judged) for name in strategies]
    return Comparison(problem, tuple(_timed(one, problem, played) for one in found))


def _timed(one: Solution, problem: PlacementProblem, played: Iterable[Windows]) -> Solution:
    clock = problem.clock
    return one if clock is None else replace(one, step_time={w.name: clock.seconds(one.placement, w) for w in played})


def _last_word(one: Solution) -> float:
    """What decides."""
    values = one.step_time or one.heldout
    return next(iter(values.values()), one.objective)


def _cells(one: Solution) -> list[str]:
    gap = ("none", "-") if one.gap is None else (f"{one.bound:.4g} ({one.bound_kind})", f"{one.gap:.2%}")
    values = [f"{value:.4g}" for value in (*one.heldout.values(), *one.step_time.values())]
    moves = "-" if one.moves is None else str(one.moves)
    return [one.strategy, f"{one.objective:.4g}", *gap, *values, moves, f"{one.seconds:.1f}"]
