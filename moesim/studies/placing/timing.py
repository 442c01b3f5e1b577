"""The step under each plan: its time, what is left at most, what per-batch programs cost; and what has to be said."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from moesim.layout import Placement
from moesim.placement import PlacementProblem, Solution, Windows, dispatch, judge
from moesim.placement.clock import Ceilings
from moesim.placement.objectives.nodes_touched import NodesTouched
from moesim.studies.placing.options import Options
from moesim.studies.placing.outcome import Outcome
from moesim.studies.placing.step import Step
from moesim.studies.placing.windows import DRIFT, HELD_OUT, Split, drawn
from moesim.units import show_seconds

SOLVE: Final = 150e-6  # seconds of one linear program, assumed: users report 100 to 200 us
BY_BATCH: Final = ("weighted", "lplb")  # rules whose weights no step plays
MOST_FOLDS: Final = 4  # whose step is played
STRETCHES: Final = 4  # of the windows that decide, each of which a step is played on


class Run(NamedTuple):
    """A solution, and the placement of the same strategy for each fold."""

    solution: Solution
    folds: tuple[Placement, ...] = ()


def timed(run: Run, problem: PlacementProblem, made: Split, step: Step, seed: int) -> Run:
    """With the simulated step time on what decides, and after drift; of several folds the mean of the first few."""
    clock, one = step.clock, run.solution
    if run.folds:
        pairs = list(zip(run.folds, made.folds, strict=True))[:MOST_FOLDS]
        taken = [clock.seconds(placement, playable(fold.judged, step, seed)) for placement, fold in pairs]
        step_time = {HELD_OUT: sum(taken) / len(taken)}
        return run._replace(solution=replace(one, step_time=step_time, step_each=tuple(taken)))
    deciding = replace(made.played or made.deciding, name=made.deciding.name)
    drift = made.judged.get(DRIFT)
    judged = [deciding, *([drift] if drift and drift.tokens is not None and made.deciding is not drift else [])]
    times = {each.name: clock.seconds(one.placement, each) for each in judged if each.tokens is not None}
    unseen = deciding.tokens is not None and made.deciding is not made.train
    parts = tuple(clock.seconds(one.placement, part) for part in _stretches(deciding)) if unseen else ()
    return run._replace(solution=replace(one, step_time=times, step_each=parts))


def _stretches(windows: Windows) -> list[Windows]:
    """The same windows in a few parts, so that a difference in step time has an interval."""
    edges = np.linspace(0, windows.num_windows, min(STRETCHES, windows.num_windows) + 1).astype(int).tolist()
    return [windows.only(first, stop, windows.name) for first, stop in pairwise(edges)]


def playable(windows: Windows, step: Step, seed: int) -> Windows:
    return drawn(windows, step.draft.plan.model, seed)


def ceilings(outcome: Outcome, made: Split, step: Step | None) -> Ceilings | None:
    """Of the step under the reference; of several folds the first one's."""
    if step is None:
        return None
    windows = made.folds[0].judged if made.folds else made.deciding
    return step.clock.ceilings(outcome.reference.placement, playable(windows, step, 0))


def program_cost(outcome: Outcome, step: Step | None) -> tuple[str, ...]:
    """What a linear program a layer and batch costs, and from which batch on it pays, where that is the dispatch."""
    problem = outcome.problem
    if problem.dispatch.name != "lplb":
        return ()
    cost = problem.layers * SOLVE
    text = f"a linear program a layer takes about {SOLVE * 1e6:.0f} us, {show_seconds(cost)} a step, which is not in it"
    if step is None or problem.train.tokens is None:
        return (text,)
    even = judge(replace(problem, dispatch=dispatch.find("even")), outcome.placement, "even", [outcome.split.deciding])
    saved = problem.prices.expert * problem.layers * (outcome.judged(even) - outcome.judged(outcome.best))
    tokens = step.draft.scenario.batch.tokens_per_gpu
    pays = (
        f"; it pays from about {tokens * cost / saved:,.0f} tokens a GPU on" if saved > 0 else "; it does not pay here"
    )
    return (text + pays,)


def grouped(outcome: Outcome) -> tuple[str, ...]:
    """Hierarchical against global EPLB, where both were asked for: load, traffic and step time of the one over the
    other on the windows that decide.
    """
    found = {one.strategy: one for one in outcome.solutions}
    if not {"eplb", "eplb_hierarchical"} <= found.keys():
        return ()
    whole, nodes = found["eplb"], found["eplb_hierarchical"]
    told = [f"{outcome.problem.objective.name} {outcome.judged(nodes) / outcome.judged(whole) - 1:+.1%}"]
    windows = outcome.split.deciding
    if windows.tokens is not None:
        touched = [NodesTouched().evaluate(outcome.problem, one.placement, windows).mean() for one in (nodes, whole)]
        told.append(f"nodes a token goes to {touched[0]:.2f} instead of {touched[1]:.2f}")
    if outcome.judge == "step_time":
        told.append(f"step time {outcome.score(nodes) / outcome.score(whole) - 1:+.1%}")
    better = "hierarchical" if outcome.score(nodes) < outcome.score(whole) else "global"
    return (f"hierarchical EPLB beside global: {', '.join(told)}; {better} is the better one here",)


def remarks(problem: PlacementProblem, options: Options, made: Split) -> tuple[str, ...]:
    """What the operator has to know of slots, layers and dispatch."""
    notes = []
    if problem.layer_slots.size:
        each = problem.layer_slots.sum(axis=1) - problem.experts
        text = f"layers differ in slots: {each.min()} to {each.max()} redundant, {each.mean():.1f} on average"
        notes.append(f"{text}; EPLB and all other strategies plan with the same")
    idle = int((problem.owned.sum(axis=0) == 0).sum())
    if idle:
        notes.append(f"{idle} GPUs hold no expert: --redundant {problem.ranks - problem.experts} would fill them")
    empty = np.flatnonzero(problem.load.sum(axis=1) == 0)
    if len(empty):
        names = ", ".join(map(str, empty[:8])) + (" ..." if len(empty) > 8 else "")
        notes.append(f"{len(empty)} layers have no counts (expert layers {names}): experts stand there in any order")
    if options.dispatch is None and options.rule != "even":
        notes.append(f"planned and judged under {options.rule}'s own dispatch over replicas (--dispatch for another)")
    if problem.previous is not None and made.folds:
        ahead = "where it was planned on these recordings, it is ahead of plans that had to leave one out"
        notes.append(f"what stands now is judged as it is: {ahead}")
    if problem.dispatch.name in BY_BATCH and problem.clock is not None:
        text = "the simulated step spreads tokens evenly over replicas, so the objective picked the winner"
        notes.append(f"{problem.dispatch.name} weighs replicas, which only the objective knows: {text}")
    if problem.train.num_windows == 1 and problem.train.tokens is None and not made.folds:
        notes.append("planned on one window: balance over windows is a guess; record different loads")
    return tuple(notes)
