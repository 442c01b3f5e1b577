"""ilp: the placement as a mixed-integer program, after the best heuristic, whose value the program must meet.

transitions: ExFlow's program over all layers. makespan: a program a layer, replicas included. The answer is never worse
than the heuristic's, and says whether it is proved; a solver that fails is said, and the heuristic's answer stands.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, DoesNotFit
from moesim.layout import Placement
from moesim.placement.bounds import balance
from moesim.placement.budget import Budget
from moesim.placement.chain import Chain
from moesim.placement.loads import imbalance
from moesim.placement.problem import PlacementProblem
from moesim.placement.search import milp
from moesim.placement.search.programs import balance_program, chain_program
from moesim.placement.solution import NO_BOUND, Answer, Bound
from moesim.placement.strategies.affinity_bcd import descend
from moesim.placement.strategies.exact_chain_dp import interchangeable
from moesim.placement.strategies.multiwindow import MultiWindow

Ints = npt.NDArray[np.int64]
SECONDS, MOST_COLUMNS = 60.0, 200_000  # without a time limit; of a program
KIND = "dual bound of the program"


class Ilp:
    """For small problems; large ones are refused and not left to run out of memory."""

    name, summary = "ilp", "a mixed-integer program (HiGHS) for transitions or makespan, with its dual bound"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        """Raises BadInput for other objectives, DoesNotFit for programs that are too large."""
        if problem.objective.name in ("transitions", "rail_transitions"):
            return _chain(problem, budget)
        if problem.objective.name == "makespan" and problem.dispatch.name == "even":
            return _layers(problem, budget)
        what = f"objective {problem.objective.name} with {problem.dispatch.name} dispatch"
        raise BadInput(f"ilp has no program for {what}", way_out="transitions, or makespan with even dispatch")


def check_size(columns: int) -> None:
    """Raises DoesNotFit."""
    if columns > MOST_COLUMNS:
        way_out = "strategy affinity_bcd, multiwindow or ilp_polish, or fewer experts"
        raise DoesNotFit(f"a program of {columns:,} columns; at most {MOST_COLUMNS:,} are tried", way_out=way_out)


def time_left(budget: Budget) -> float:
    """Seconds for a solver."""
    return min(budget.remaining, SECONDS) if budget.seconds is None else budget.remaining


def _chain(problem: PlacementProblem, budget: Budget) -> Answer:
    check_size(problem.layers * problem.slots**2 * (problem.ranks + problem.nodes))
    chain, notes = Chain.of(problem), []
    best = descend(chain, problem, budget)
    value, bound = chain.cost(best), NO_BOUND
    rank, outcome = solve_chain(problem, chain, value, time_left(budget), budget)
    if rank is not None and (chain.excess(rank), chain.cost(rank)) < (chain.excess(best), value):
        best, value = rank, chain.cost(rank)
    if problem.slots == problem.experts:
        bound = Bound(hops_of(problem, chain, outcome.bound), KIND)
    if not outcome.optimal:
        notes.append(f"not proved optimal: {outcome.remark}")
    elif problem.slots > problem.experts:
        notes.append("optimal for its choice of replicas, which follows the load")
    budget.offer(chain.placement(problem, best), value, bound)
    return Answer(chain.placement(problem, best), bound, tuple(notes))


def solve_chain(
    problem: PlacementProblem, chain: Chain, value: float, seconds: float, budget: Budget
) -> tuple[Ints | None, milp.Solved]:  # fmt: skip
    """(int64[layers, S] rank of each item, no costlier than `value` hops a move, or None; what the solver said)."""
    program, stands = chain_program(problem, chain, interchangeable(problem))
    most = (value - hops_of(problem, chain, 0.0)) * chain.total
    paid = np.flatnonzero(program.cost)
    program.row(paid, np.array(program.cost)[paid], most=most + 1e-6 * chain.total)
    outcome = milp.solve(program, seconds, stop=lambda: budget.expired)
    return (None if outcome.values is None else outcome.values[stands].argmax(axis=2)), outcome


def hops_of(problem: PlacementProblem, chain: Chain, value: float) -> float:
    """Value or bound of a chain program -> hops a move, at least 0."""
    farthest = (2.0 if problem.nodes > 1 else 1.0) + (problem.objective.name == "rail_transitions")
    return max(farthest + value / max(chain.total, 1.0), 0.0)


def _layers(problem: PlacementProblem, budget: Budget) -> Answer:
    check_size(problem.experts * problem.most_replicas * (problem.ranks + 1))
    first = MultiWindow().plan(problem, budget).placement
    least, table = balance.bounds(problem), first.slot_expert.copy()
    proved, remarks = least.mean(axis=0), []
    for layer in range(problem.layers):
        row, outcome = _one_layer(
            problem, layer, float(least[:, layer].min()), time_left(budget) / (problem.layers - layer), budget
        )
        if problem.slots == problem.experts:
            proved[layer] = max(proved[layer], outcome.bound)
        remarks += [] if outcome.optimal else [f"layer {layer}: {outcome.remark}"]
        if row is not None and _peak(problem, first, table, layer, row) < _peak(
            problem, first, table, layer, table[layer]
        ):
            table[layer] = row
            budget.offer(problem.place(table), float(_peaks(problem, problem.place(table)).mean()))
    apart = problem.slots > problem.experts
    bound = Bound(float(proved.mean()), "combinatorial" if apart else KIND)
    notes: tuple[str, ...] = (
        (f"{len(remarks)} of {problem.layers} layers not proved, first {remarks[0]}",) if remarks else ()
    )
    notes += ("the program keeps replicas of an expert on different ranks",) if apart else ()
    return Answer(problem.place(table), bound, notes)


def _one_layer(
    problem: PlacementProblem, layer: int, least: float, seconds: float, budget: Budget
) -> tuple[npt.NDArray[np.int32] | None, milp.Solved]:  # fmt: skip
    program, stands = balance_program(problem, layer, least)
    outcome = milp.solve(program, seconds, stop=lambda: budget.expired)
    if outcome.values is None:
        return None, outcome
    held = outcome.values[stands].sum(axis=1) > 0.5  # [experts, ranks]
    return np.concatenate([np.flatnonzero(held[:, rank]) for rank in range(problem.ranks)]).astype(np.int32), outcome


def _peaks(problem: PlacementProblem, placement: Placement) -> npt.NDArray[np.float64]:
    """float64[layers]."""
    result: npt.NDArray[np.float64] = imbalance(problem, placement, problem.train).mean(axis=0)
    return result


def _peak(
    problem: PlacementProblem, first: Placement, table: npt.NDArray[np.int32], layer: int, row: npt.NDArray[np.int32]
) -> float:
    tried = table.copy()
    tried[layer] = row
    return float(_peaks(problem, problem.place(tried))[layer])
