"""`place`: read what was recorded, let strategies plan on most of it, judge them on the rest, pick one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, DoesNotFit, MoesimError, placed, unknown_name
from moesim.hardware import Cluster
from moesim.layout import Placement
from moesim.models import MoEModel
from moesim.placement import (
    Budget,
    Memory,
    PlacementProblem,
    Progress,
    Solution,
    by_layer,
    dispatch,
    judge,
    objectives,
    plan,
    solve,
    strategies,
)
from moesim.placement.dispatch.ways import EVEN
from moesim.placement.formats import Frame, find_format, read_placement, written
from moesim.placement.formats.format import check_even
from moesim.placement.limits import check_limits
from moesim.placement.loads import imbalance
from moesim.placement.migration import KERNEL, Migration, migrate
from moesim.placement.solve import check_answer
from moesim.placement.strategies.exhaustive import SMALL
from moesim.routing.loads import LoadRecord
from moesim.studies.basis import price_notes
from moesim.studies.placing.history import History, follow
from moesim.studies.placing.options import Options
from moesim.studies.placing.outcome import Outcome
from moesim.studies.placing.recordings import Recorded, RecordedFile, paths_of, read_recorded, recordings
from moesim.studies.placing.step import Step, find_cluster, find_model, make_step
from moesim.studies.placing.timing import BY_BATCH, Run, ceilings, grouped, playable, program_cost, remarks, timed
from moesim.studies.placing.windows import HELD_OUT, Split, drawn, on_model, split, split_many
from moesim.version import __version__

IN_ORDER, PREVIOUS, YARDSTICK = "contiguous", "previous", "eplb"
ASSUMED = (
    "step time from counts: tokens are assumed, drawn from each layer's margins (different experts a token within the "
    "router's group limit); what goes together in and between layers is taken to be independent"
)
Ints = npt.NDArray[np.int64]
Tell = Callable[[Progress], None]


def place(
    trace: str | Path | Sequence[str | Path], topology: str | Path, gpus: int, *, progress: Tell | None = None,
    **options: Any,
) -> Outcome:  # fmt: skip
    """Search a placement; one recording or several, by name or path; the options are those of `Options`. Raises
    BadInput, DoesNotFit.

    `place("tiny-moe", "dgx-h100", 8, redundant=8).placement` is the best one found.
    """
    names = trace if isinstance(trace, str | Path) else ",".join(map(str, trace))
    return search(Options(str(names), str(topology), gpus, **options), progress)


def search(options: Options, progress: Tell | None = None) -> Outcome:
    """See `place`. Ctrl-C ends the search with what was found so far."""
    asked = _names(options)
    found = _recordings(options)
    recorded = found[0].recorded
    model, cluster = find_model(recorded, options), find_cluster(options)
    recorded = on_model(recorded, model, options)
    made = split(recorded, options) if len(found) == 1 else split_many(found, options)
    if model is not None and options.simulate is not False and isinstance(recorded, LoadRecord):
        made = replace(made, played=drawn(made.deciding, model, options.seed))
    step, why_not = _step(options, model, cluster, recorded, made)
    frame = _frame(recorded, model, options.gpus)
    previous = None if options.previous is None else read_placement(options.previous, frame)
    problem = _shared_out(_problem(options, cluster, made, step, previous, model), options, progress)
    _check_even(problem, options.format)
    names = asked or usual(problem)
    runs, failed = _search(problem, names, options, made, progress)
    if step is not None:
        runs = [timed(one, problem, made, step, options.seed) for one in runs]
    outcome = Outcome(
        problem=problem,
        split=made,
        solutions=tuple(one.solution for one in runs),
        judge="objective" if step is None or problem.dispatch.name in BY_BATCH else "step_time",
        frame=frame,
        provenance=_provenance(options, recorded, cluster, made, step),
        barred=_barred(problem, [one.solution for one in runs], options.format, frame),
        beside=frozenset((YARDSTICK,)) - frozenset(names),
        notes=(*made.notes, *why_not, *_silent(frame, model), *_basis(recorded, step),
               *remarks(problem, options, made), *failed),
    )  # fmt: skip
    outcome = replace(outcome, notes=(*outcome.notes, *program_cost(outcome, step), *grouped(outcome)))
    return replace(outcome, migration=_migration(outcome, step), ceilings=ceilings(outcome, made, step))


def rebalance(options: Options) -> History:
    """Play ways to rebalance on the recordings of `options.trace`, a folder or names. Raises BadInput, DoesNotFit."""
    found = recordings(paths_of(options.trace), _named(options))
    recorded = found[0].recorded
    model, cluster = find_model(recorded, options), find_cluster(options)
    made = split_many(found, replace(options, holdout=0.0))
    if model is not None and options.simulate is not False:
        made = replace(made, played=drawn(made.train, model, options.seed))
    step, why_not = _step(options, model, cluster, recorded, made)
    frame = _frame(recorded, model, options.gpus)
    previous = None if options.previous is None else read_placement(options.previous, frame)
    problem = _shared_out(_problem(options, cluster, made, step, previous, model), options, None)
    if step is None:
        return replace(follow(problem, found, frame, options), notes=why_not)
    priced = replace(problem, train=playable(made.train, step, options.seed))
    saved = priced.prices.expert * problem.layers
    fabric = step.draft.plan.fabric
    done = follow(problem, found, frame, options, fabric, step.memory.expert_bytes, saved)
    return replace(done, notes=(*made.notes, *why_not, *_basis(recorded, step)))


def _recordings(options: Options) -> tuple[RecordedFile, ...]:
    names = paths_of(options.trace)
    model = _named(options)
    return (RecordedFile(names[0], read_recorded(names[0], model)),) if len(names) == 1 else recordings(names, model)


def _named(options: Options) -> str | None:
    """The model that the recordings are of; a transplanted one is of another."""
    return None if options.transplant else options.model


def _search(
    problem: PlacementProblem, names: tuple[str, ...], options: Options, made: Split, progress: Tell | None
) -> tuple[list[Run], list[str]]:
    """The baseline, each strategy, and EPLB, the yardstick; those that break a limit or cannot do this problem are
    told, unless all that were asked for do.
    """
    found, failed = [_baseline(problem, made)], dict[str, MoesimError]()
    folds = [_shared_out(problem.with_train(fold.train), options, progress) for fold in made.folds]
    for name in dict.fromkeys((*names, YARDSTICK)):
        try:
            one = _solved(problem, folds, name, options, made, progress)
        except (BadInput, DoesNotFit) as error:
            failed[name] = error
            continue
        found.append(one)
        if one.solution.interrupted:
            break
    able = {one.solution.strategy for one in found}
    if not able & set(names) and (asked := [failed[name] for name in names if name in failed]):
        raise asked[0]
    return found, [_left_out(name, str(error)) for name, error in failed.items() if name in names]


def _solved(
    problem: PlacementProblem, folds: list[PlacementProblem], name: str, options: Options, made: Split,
    progress: Tell | None,
) -> Run:  # fmt: skip
    """One strategy on all that may be seen, and anew on the problem of each fold."""
    one = solve(problem, name, options.time_limit, options.seed, heldout=made.judged.values(), progress=progress)
    if not made.folds or one.interrupted:
        return Run(replace(one, each=_each(problem, one.placement, made)))
    plans = [plan(part, name, options.time_limit, options.seed, progress=progress).placement for part in folds]
    return Run(_with_folds(one, problem, made, tuple(plans)), tuple(plans))


def _with_folds(one: Solution, problem: PlacementProblem, made: Split, plans: tuple[Placement, ...]) -> Solution:
    """Held-out values of plans that did not see each fold, and their mean."""
    objective = problem.objective
    values = tuple(
        float(objective.evaluate(problem.with_train(fold.train), placed_so, fold.judged).mean())
        for fold, placed_so in zip(made.folds, plans, strict=True)
    )
    return replace(one, heldout={HELD_OUT: sum(values) / len(values), **one.heldout}, each=values)


def _each(problem: PlacementProblem, placement: Placement, made: Split) -> tuple[float, ...]:
    """The objective window by window, where it has a value a window and windows are unseen."""
    if problem.objective.name != "makespan" or made.deciding is made.train:
        return ()
    return tuple(imbalance(problem, placement, made.deciding).mean(axis=1).tolist())


def _check_even(problem: PlacementProblem, name: str | None) -> None:
    """Slots that no placement could bring into the asked format are refused before the search. Raises BadInput."""
    if name is not None and find_format(name).even:
        check_even(by_layer.answer(problem, strategies.find(IN_ORDER), Budget()).placement, name)


def _barred(problem: PlacementProblem, found: Sequence[Solution], name: str | None, frame: Frame) -> dict[str, str]:
    """Who cannot be picked, and why: the baseline where it breaks a limit (answers of strategies were checked), and
    what the asked format cannot express. Raises the last reason where that holds for all.
    """
    why: dict[str, MoesimError] = {}
    for one in found:
        try:
            if one is found[0]:
                check_answer(problem, one.placement, one.strategy)
            if name is not None:
                written(one.placement, name, frame)
        except (BadInput, DoesNotFit) as error:
            why[one.strategy] = error
    if len(why) == len(found):
        raise why[found[-1].strategy]
    return {strategy: str(error) for strategy, error in why.items()}


def _left_out(name: str, why: str) -> str:
    return f"left out: {why}" if why.startswith(name) else f"left out: {name}: {why}"


def _names(options: Options) -> tuple[str, ...]:
    """The strategies that were asked for, checked before anything is read. Raises BadInput."""
    names = tuple(strategies.REGISTRY) if "all" in options.strategies else tuple(options.strategies)
    for name in names:
        if name not in strategies.REGISTRY:
            raise unknown_name("placement strategy", name, [*strategies.REGISTRY, "all"], where="--strategy")
    return tuple(name for name in dict.fromkeys(names) if name != IN_ORDER or options.previous)


def usual(problem: PlacementProblem) -> tuple[str, ...]:
    """Where nobody chooses: DeepSeek's policies, balance over windows, and fewer hops where there is a way to hop; from
    a previous placement within a budget of moves only what knows of budgets.
    """
    if problem.move_budget is not None:
        return ("incremental",)
    hierarchical = problem.nodes > 1 and problem.groups % problem.nodes == 0
    tokens, alike = problem.train.tokens is not None, not problem.layer_slots.size
    fits = {
        "incremental": problem.previous is not None and np.array_equal(problem.previous.owned, problem.owned),
        "eplb": True,
        "eplb_hierarchical": hierarchical,
        "multiwindow": True,
        "exhaustive": problem.experts <= SMALL and problem.way == EVEN,
        "two_resources": tokens
        and alike
        and problem.nodes > 1
        and problem.clock is not None
        and problem.clock.overlapped,
        "co_activation": tokens and problem.nodes > 1,
        "affinity_bcd": tokens and alike,
    }
    return tuple(name for name, fit in fits.items() if fit)


def _step(
    options: Options, model: MoEModel | None, cluster: Cluster, recorded: Recorded, made: Split
) -> tuple[Step | None, tuple[str, ...]]:
    """The step to simulate, or why there is none. Raises BadInput where one was asked for."""
    reasons = []
    unplayed = options.simulate is False or model is None
    if options.changes and unplayed:
        raise BadInput("changes a step that is not simulated", where="--set", way_out="no --set, or tokens and a model")
    if model is None:
        reasons.append(f"{options.trace} is of {recorded.header.model}, which moesim does not know (--model)")
    if options.simulate is False:
        return None, ("step time was not simulated, as asked: the objective picked the winner",)
    if reasons and options.simulate:
        way_out = "--model NAME of the same shape, or no --simulate"
        raise BadInput(f"step time cannot be simulated: {reasons[0]}", where=options.trace, way_out=way_out)
    if reasons or model is None:
        return None, (f"step time was not simulated, the objective picked the winner: {'; '.join(reasons)}",)
    if not isinstance(recorded, LoadRecord):
        return make_step(options, model, cluster, recorded, made), ()
    try:
        return make_step(options, model, cluster, recorded, made), (ASSUMED,)
    except DoesNotFit as error:
        if options.simulate or options.changes:
            raise
        return None, (f"step time was not simulated, the objective picked the winner: {error}",)


def _frame(recorded: Recorded, model: MoEModel | None, gpus: int) -> Frame:
    if model is not None:
        return Frame(gpus, model.num_experts, tuple(model.moe_layers), model.num_layers)
    header = recorded.header
    layers, total = header.evidence.get("layer_ids"), header.evidence.get("total_layers")
    if layers is None or total is None:
        return Frame(gpus, header.num_experts)
    return Frame(gpus, header.num_experts, tuple(map(int, layers)), int(total))


def _silent(frame: Frame, model: MoEModel | None) -> tuple[str, ...]:
    """Layers of the file that hold no counts at all, where no model says which layers have experts."""
    dense = sorted(set(range(frame.total_layers or 0)) - set(frame.moe_layers or ()))
    if model is not None or not dense:
        return ()
    names = ", ".join(map(str, dense[:8])) + (" ..." if len(dense) > 8 else "")
    return (f"no counts in layers {names}: taken to be layers without experts (--model says which are)",)


def _problem(
    options: Options, cluster: Cluster, made: Split, step: Step | None, previous: Placement | None,
    model: MoEModel | None,
) -> PlacementProblem:  # fmt: skip
    slots = tuple(options.slots) or _slots_of(previous, options)
    rows = _rows_of(previous, options, slots)
    if len(slots) not in (0, 1, options.gpus):
        raise BadInput(f"{len(slots)} numbers for {options.gpus} GPUs", where="--slots", way_out="one, or one for each")
    experts = made.train.counts.shape[2]
    asked = max(slots, default=-(-(experts + options.redundant) // options.gpus))
    if asked > experts:
        way_out = f"--slots {experts} or less" if slots else f"--redundant {experts * (options.gpus - 1)} or less"
        raise BadInput(f"{asked} slots of a GPU for {experts} experts", where=options.trace, way_out=way_out)
    with placed(options.trace):
        problem = PlacementProblem.on(
            cluster, made.train, ranks=options.gpus, slots=slots or None, redundant=0 if slots else options.redundant,
            objective=objectives.find(options.objective), dispatch=dispatch.find(options.rule),
            load_cap=options.load_cap, previous=previous, move_budget=options.max_moves, speed=tuple(options.speed),
            memory=_memory(options, step), clock=None if step is None else step.clock,
            groups=options.groups or (1 if model is None else model.num_groups), layer_slots=rows,
        )  # fmt: skip
        check_limits(problem)
    return problem


def _shared_out(problem: PlacementProblem, options: Options, progress: Tell | None) -> PlacementProblem:
    """With slots where they help most on what may be seen, where that is asked for."""
    if not options.by_layer:
        return problem
    return by_layer.allotted(problem, options.redundant, Budget(None, options.seed, "slots of layers", progress))


def _slots_of(previous: Placement | None, options: Options) -> tuple[int, ...]:
    """What stands now brings its own slots, where none are asked for; of layers that differ the most of any."""
    if previous is None or options.redundant:
        return ()
    return tuple(previous.owned.max(axis=0).tolist())


def _rows_of(previous: Placement | None, options: Options, slots: tuple[int, ...]) -> Ints:
    """int64[layers, ranks] where what stands now has layers that differ in slots and brings them; else empty."""
    brought = previous is not None and slots and not options.slots and len(np.unique(previous.owned, axis=0)) > 1
    return previous.owned if previous is not None and brought else np.empty((0, 0), dtype=np.int64)


def _memory(options: Options, step: Step | None) -> Memory | None:
    """What is asked for, else what the step leaves. Raises BadInput where the size of an expert is not known."""
    if options.expert_memory is None:
        return None if step is None else step.memory
    if step is None:
        raise BadInput("needs the size of an expert", where="--expert-memory", way_out="--model, and no --no-simulate")
    return Memory(step.memory.expert_bytes, options.expert_memory)


def _baseline(problem: PlacementProblem, made: Split) -> Run:
    """What stands now, or experts in order."""
    name, placement = PREVIOUS, problem.previous
    if placement is None:
        name, placement = IN_ORDER, by_layer.answer(problem, strategies.find(IN_ORDER), Budget()).placement
    one = judge(problem, placement, name, made.judged.values())
    plans = (placement,) * len(made.folds)
    one = _with_folds(one, problem, made, plans) if plans else replace(one, each=_each(problem, placement, made))
    return Run(one, plans)


def _migration(outcome: Outcome, step: Step | None) -> Migration | None:
    """From what stands now to the best, where both the bytes of an expert and the links are known."""
    if outcome.problem.previous is None or step is None:
        return None
    fabric = step.draft.plan.fabric
    return migrate(outcome.problem.previous, outcome.placement, fabric, step.memory.expert_bytes)


def _provenance(
    options: Options, recorded: Recorded, cluster: Cluster, made: Split, step: Step | None
) -> dict[str, Any]:  # fmt: skip
    told: dict[str, Any] = {
        "moesim": __version__,
        "trace": options.trace,
        "model": recorded.header.model,
        "routing": recorded.header.basis,
        "topology": cluster.name,
        "gpus": options.gpus,
        "objective": options.objective,
        "dispatch_over_replicas": options.rule,
        "recordings": list(paths_of(options.trace)),
        "left_out_in_turn": [fold.name for fold in made.folds],
        "window": made.window,
        "windows": made.train.num_windows,
        "judged_windows": {name: windows.num_windows for name, windows in made.judged.items()},
        "seed": options.seed,
    }
    if step is not None:
        batch = step.draft.scenario.batch
        told |= {
            "phase": step.phase,
            "tokens_per_gpu": batch.tokens_per_gpu,
            "block": step.clock.block,
            "dispatch": step.draft.plan.dispatch.algorithm.name,
            "costs": step.draft.plan.ops.costs.name,
            "player": "evaluate (port loads)",
        }
    return told


def _basis(recorded: Recorded, step: Step | None) -> tuple[str, ...]:
    """What the load and the step time rest on; prices are known only after steps were played."""
    routing = () if recorded.header.basis == "recorded" else (f"routing: {recorded.header.basis}",)
    if step is None:
        return routing
    plan = step.draft.plan
    prices = price_notes(step.draft.log, plan.ops.costs, plan.fabric.cluster.devices[0].name)
    lent = (note for note in plan.fabric.lent(KERNEL) if note not in step.draft.warnings)
    return (*routing, *step.draft.warnings, *lent, *prices)
