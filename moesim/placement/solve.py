"""One strategy on one problem: `plan` checks its answer against the limits, `solve` scores and certifies it too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from moesim.errors import DoesNotFit
from moesim.layout import Placement
from moesim.placement import by_layer, strategies
from moesim.placement.budget import Budget, Progress
from moesim.placement.limits import check_limits
from moesim.placement.loads import rank_loads
from moesim.placement.moves import count_moves
from moesim.placement.problem import PlacementProblem
from moesim.placement.relabel import relabel
from moesim.placement.solution import Answer, Bound, Solution
from moesim.placement.windows import Windows

SLACK = 1e-9  # of a limit: rounding of sums


def solve(
    problem: PlacementProblem,
    strategy: str = "multiwindow",
    time_limit: float | None = None,
    seed: int = 0,
    *,
    heldout: Iterable[Windows] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Solution:
    """time_limit: seconds; heldout: windows to judge on that the strategy never sees. Ctrl-C answers with the best
    found and says so. Raises BadInput, and DoesNotFit where the answer breaks a limit.
    """
    budget = Budget(time_limit, seed, strategy, progress)
    answer = _searched(problem, budget)
    return _score(problem, answer, budget, budget.elapsed, heldout)


def plan(
    problem: PlacementProblem, strategy: str = "multiwindow", time_limit: float | None = None, seed: int = 0,
    *, progress: Callable[[Progress], None] | None = None,
) -> Answer:  # fmt: skip
    """The answer that `solve` would score, without value or bound: for whoever only needs a placement. Raises as it."""
    budget = Budget(time_limit, seed, strategy, progress)
    answer = _searched(problem, budget)
    return replace(answer, notes=(*answer.notes, *_stopped(budget)))


def _searched(problem: PlacementProblem, budget: Budget) -> Answer:
    """The strategy's answer, with ranks relabelled and limits checked."""
    check_limits(problem)
    chosen = strategies.find(budget.strategy)
    with budget.interruptible():
        answer = _relabelled(problem, _answer(chosen, problem, budget))
    check_answer(problem, answer.placement, budget.strategy)
    return answer


def _answer(strategy: strategies.Strategy, problem: PlacementProblem, budget: Budget) -> Answer:
    """The strategy's answer; after a second Ctrl-C the best it had offered, if it had any."""
    try:
        return by_layer.answer(problem, strategy, budget)
    except KeyboardInterrupt:
        if budget.best is None:
            raise
        return budget.best


def judge(problem: PlacementProblem, placement: Placement, name: str, heldout: Iterable[Windows] = ()) -> Solution:
    """A placement that was not searched for, scored as an answer would be; limits are not looked at."""
    return _score(problem, Answer(placement), Budget(strategy=name), 0.0, heldout)


def _relabelled(problem: PlacementProblem, answer: Answer) -> Answer:
    """Equal ranks take over each other's roles where that moves fewer experts."""
    if problem.previous is None:
        return answer
    kinds = np.unique(problem.speed, return_inverse=True)[1].astype(np.int64)
    return replace(answer, placement=relabel(problem.previous, answer.placement, problem.node_of_rank, kinds))


def check_answer(problem: PlacementProblem, placement: Placement, strategy: str) -> None:
    """Each limit again, on what came out. Raises DoesNotFit that names the one which is broken."""
    if problem.load_cap is not None:
        total = rank_loads(problem, placement, problem.train.merged())[0] / problem.speed
        reached = float((total.max(axis=1) / np.maximum(problem.load.sum(axis=1) / problem.speed.sum(), 1e-300)).max())
        if reached > problem.load_cap + SLACK:
            way_out = f"load cap {reached:.3f}, another strategy, or more redundant slots"
            raise DoesNotFit(f"{strategy} reaches {reached:.3f}, above load cap {problem.load_cap:g}", way_out=way_out)
    if problem.move_budget is not None and problem.previous is not None:
        moves = count_moves(problem.previous, placement)
        if moves > problem.move_budget:
            way_out = f"strategy incremental, or a move budget of {moves}"
            raise DoesNotFit(f"{strategy} moves {moves} slots, the budget is {problem.move_budget}", way_out=way_out)


def _score(
    problem: PlacementProblem, answer: Answer, budget: Budget, seconds: float, heldout: Iterable[Windows]
) -> Solution:
    objective, placement = problem.objective, answer.placement
    value = float(objective.evaluate(problem, placement, problem.train).mean())
    bound = _bound(problem, _bounding(budget)).tighter(answer.bound).tighter(budget.bound)
    return Solution(
        strategy=budget.strategy,
        placement=placement,
        objective=value,
        bound=bound.value,
        gap=value / bound.value - 1 if bound.value > 0 else None,
        bound_kind=bound.kind,
        moves=None if problem.previous is None else count_moves(problem.previous, placement),
        seconds=seconds,
        heldout={windows.name: float(objective.evaluate(problem, placement, windows).mean()) for windows in heldout},
        notes=(*answer.notes, *_stopped(budget)),
        interrupted=budget.interrupted,
    )


def _bound(problem: PlacementProblem, budget: Budget) -> Bound:
    """What no placement can beat by the objective; found once, whatever number of strategies is compared, within what
    the first one's budget leaves."""
    if "bound" not in problem.found:
        problem.found["bound"] = by_layer.bound(problem, budget)
    return problem.found["bound"]


def _bounding(budget: Budget) -> Budget:
    """What is left of a strategy's time, for the bound on its answer."""
    left = None if budget.seconds is None else budget.remaining
    return Budget(left, budget.seed, "bound", budget.progress, interrupted=budget.interrupted)


def _stopped(budget: Budget) -> tuple[str, ...]:
    if budget.interrupted:
        return ("interrupted: the best found until then",)
    return ("time limit reached: the best found until then",) if budget.cut else ()
