"""`place`: read what was recorded, let strategies plan on most of it, judge them on the rest, pick one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import moesim
from moesim.errors import BadInput, DoesNotFit, MoesimError, placed, unknown_name
from moesim.hardware import Cluster
from moesim.layout import Placement
from moesim.models import MoEModel
from moesim.placement import Budget, PlacementProblem, Progress, Solution, judge, solve, strategies
from moesim.placement.formats import Frame, find_format, read_placement, written
from moesim.placement.formats.format import check_even
from moesim.placement.migration import Migration, migrate
from moesim.placement.solve import check_answer
from moesim.routing.loads import LoadRecord
from moesim.studies.basis import price_notes
from moesim.studies.placing.options import Options
from moesim.studies.placing.outcome import Outcome
from moesim.studies.placing.step import Step, find_cluster, find_model, make_step
from moesim.studies.placing.windows import DRIFT, Recorded, Split, on_model, read_recorded, split

IN_ORDER, PREVIOUS = "contiguous", "previous"
Tell = Callable[[Progress], None]


def place(trace: str, topology: str, gpus: int, *, progress: Tell | None = None, **options: Any) -> Outcome:
    """Search a placement; the options are those of `Options`. Raises BadInput, DoesNotFit.

    `place("tiny-moe", "dgx-h100", 8, redundant=8).placement` is the best one found.
    """
    return search(Options(trace, topology, gpus, **options), progress)


def search(options: Options, progress: Tell | None = None) -> Outcome:
    """See `place`. Ctrl-C ends the search with what was found so far."""
    asked = _names(options)
    recorded = read_recorded(options.trace)
    model, cluster = find_model(recorded, options), find_cluster(options)
    recorded = on_model(recorded, model, options)
    made = split(recorded, options)
    step, why_not = _step(options, model, cluster, recorded, made)
    frame = _frame(recorded, model, options.gpus)
    previous = None if options.previous is None else read_placement(options.previous, frame)
    problem = _problem(options, cluster, made, step, previous, 1 if model is None else model.num_groups)
    _check_even(problem, options.format)
    found, failed = _search(problem, asked or usual(problem), options, made, progress)
    if step is not None:
        found = [_timed(one, problem, made) for one in found]
    outcome = Outcome(
        problem=problem,
        split=made,
        solutions=tuple(found),
        judge="objective" if step is None else "step_time",
        frame=frame,
        provenance=_provenance(options, recorded, cluster, made, step),
        barred=_barred(problem, found, options.format, frame),
        notes=(*made.notes, *why_not, *_basis(recorded, step), *failed),
    )
    return replace(outcome, migration=_migration(outcome, step))


def _search(
    problem: PlacementProblem, names: tuple[str, ...], options: Options, made: Split, progress: Tell | None
) -> tuple[list[Solution], list[str]]:
    """The baseline, then each strategy; those that break a limit or cannot do this problem are told, unless all do."""
    found, failed = [_baseline(problem, made)], dict[str, MoesimError]()
    for name in names:
        try:
            one = solve(
                problem, name, options.time_limit, options.seed, heldout=made.judged.values(), progress=progress
            )
        except (BadInput, DoesNotFit) as error:
            failed[name] = error
            continue
        found.append(one)
        if one.interrupted:
            break
    if failed and len(found) == 1:
        raise next(iter(failed.values()))
    return found, [_left_out(name, str(error)) for name, error in failed.items()]


def _check_even(problem: PlacementProblem, name: str | None) -> None:
    """Slots that no placement could bring into the asked format are refused before the search. Raises BadInput."""
    if name is not None and find_format(name).even:
        check_even(strategies.find(IN_ORDER).plan(problem, Budget()).placement, name)


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
    tokens = problem.train.tokens is not None
    fits = {
        "incremental": problem.previous is not None and problem.previous.num_slots == problem.slots,
        "eplb": True,
        "eplb_hierarchical": hierarchical,
        "multiwindow": True,
        "co_activation": tokens and problem.nodes > 1,
        "affinity_bcd": tokens,
    }
    return tuple(name for name, fit in fits.items() if fit)


def _step(
    options: Options, model: MoEModel | None, cluster: Cluster, recorded: Recorded, made: Split
) -> tuple[Step | None, tuple[str, ...]]:
    """The step to simulate, or why there is none. Raises BadInput where one was asked for."""
    reasons = []
    unplayed = options.simulate is False or model is None or isinstance(recorded, LoadRecord)
    if options.changes and unplayed:
        raise BadInput("changes a step that is not simulated", where="--set", way_out="no --set, or tokens and a model")
    if model is None:
        reasons.append(f"{options.trace} is of {recorded.header.model}, which moesim does not know (--model)")
    if isinstance(recorded, LoadRecord):
        reasons.append(f"{options.trace} holds counts, a step needs tokens")
    if options.simulate is False:
        return None, ("step time was not simulated, as asked: the objective picked the winner",)
    if reasons and options.simulate:
        raise BadInput(f"step time cannot be simulated: {reasons[0]}", where=options.trace)
    if reasons or model is None:
        return None, (f"step time was not simulated, the objective picked the winner: {'; '.join(reasons)}",)
    return make_step(options, model, cluster, recorded, made), ()


def _frame(recorded: Recorded, model: MoEModel | None, gpus: int) -> Frame:
    if model is not None:
        return Frame(gpus, model.num_experts, tuple(model.moe_layers), model.num_layers)
    header = recorded.header
    layers, total = header.evidence.get("layer_ids"), header.evidence.get("total_layers")
    if layers is None or total is None:
        return Frame(gpus, header.num_experts)
    return Frame(gpus, header.num_experts, tuple(map(int, layers)), int(total))


def _problem(
    options: Options, cluster: Cluster, made: Split, step: Step | None, previous: Placement | None, groups: int
) -> PlacementProblem:  # fmt: skip
    slots = tuple(options.slots)
    if len(slots) not in (0, 1, options.gpus):
        raise BadInput(f"{len(slots)} numbers for {options.gpus} GPUs", where="--slots", way_out="one, or one for each")
    experts, asked = made.train.counts.shape[2], max(slots, default=-(-options.redundant // options.gpus))
    if asked > experts:
        raise BadInput(f"{asked} slots of a GPU for {experts} experts", where=options.trace, way_out="each expert once")
    with placed(options.trace):
        return PlacementProblem.on(
            cluster, made.train, ranks=options.gpus, slots=slots or None, redundant=options.redundant,
            objective=options.objective, dispatch=options.dispatch, load_cap=options.load_cap, previous=previous,
            move_budget=options.max_moves, memory=None if step is None else step.memory,
            clock=None if step is None else step.clock, groups=groups,
        )  # fmt: skip


def _baseline(problem: PlacementProblem, made: Split) -> Solution:
    """What stands now, or experts in order."""
    if problem.previous is not None:
        return judge(problem, problem.previous, PREVIOUS, made.judged.values())
    in_order = strategies.find(IN_ORDER).plan(problem, Budget())
    return judge(problem, in_order.placement, IN_ORDER, made.judged.values())


def _timed(one: Solution, problem: PlacementProblem, made: Split) -> Solution:
    """With the simulated step time on the windows that decide, and after drift."""
    assert problem.clock is not None
    judged = [windows for windows in (made.deciding, made.judged.get(DRIFT)) if windows and windows.tokens is not None]
    return replace(one, step_time={each.name: problem.clock.seconds(one.placement, each) for each in judged})


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
        "moesim": moesim.__version__,
        "trace": options.trace,
        "model": recorded.header.model,
        "routing": recorded.header.basis,
        "topology": cluster.name,
        "gpus": options.gpus,
        "objective": options.objective,
        "dispatch_over_replicas": options.dispatch,
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
    return (*routing, *step.draft.warnings, *prices)
