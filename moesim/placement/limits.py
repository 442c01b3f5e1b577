"""Limits that contradict each other: refused before anything is searched, with the smallest change that would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.errors import DoesNotFit
from moesim.units import show_bytes

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem


def check_limits(problem: PlacementProblem) -> None:
    """Raises DoesNotFit that names the limits in conflict."""
    _enough_slots(problem)
    _enough_memory(problem)
    _reachable_cap(problem)
    _reachable_budget(problem)


def _enough_slots(problem: PlacementProblem) -> None:
    missing = problem.experts - problem.slots
    if missing > 0:
        each = -(-problem.experts // problem.ranks)
        raise DoesNotFit(
            f"{problem.experts} experts on {problem.slots} slots of {problem.ranks} ranks: {missing} slots too few",
            way_out=f"{each} slots a rank, or {missing} slots more in all",
        )


def _enough_memory(problem: PlacementProblem) -> None:
    if problem.memory is None:
        return
    expert_bytes, rank_bytes = problem.memory
    each, room = expert_bytes * problem.layers, rank_bytes // max(expert_bytes * problem.layers, 1)
    total = problem.owned.sum(axis=0)
    if total.max() * expert_bytes <= rank_bytes:
        return
    rank, most = int(total.argmax()), -(-int(total.max()) // problem.layers)
    needed = f"rank {rank}: {most} slots x {problem.layers} layers need {show_bytes(most * each)}"
    if room * problem.ranks >= problem.experts:
        way_out = f"at most {room} slots a rank, or {show_bytes(most * each - rank_bytes)} more a rank"
    else:
        ranks = f"{-(-problem.experts // room)} ranks" if room else "smaller experts"
        way_out = f"{ranks}: at {room} slots a rank, {problem.experts} experts have no place on {problem.ranks} ranks"
    raise DoesNotFit(f"{needed}, experts may take {show_bytes(rank_bytes)}", way_out=way_out)


def _reachable_cap(problem: PlacementProblem) -> None:
    """A rank that holds a replica of the hottest expert carries its share, whatever else it holds."""
    if problem.load_cap is None:
        return
    load, replicas = problem.load.max(axis=1), problem.most_replicas
    mean = problem.load.sum(axis=1) / problem.speed.sum() * problem.speed.max()
    lowest = np.maximum(load / replicas / np.maximum(mean, 1e-300), 1.0)
    layer = int(lowest.argmax())
    if lowest[layer] <= problem.load_cap:
        return
    expert = int(problem.load[layer].argmax())
    needed = int(np.ceil(load[layer] / (problem.load_cap * mean[layer]))) if problem.load_cap >= 1 else 0
    more = f", or {needed - replicas} redundant slots more" if 0 < needed <= problem.ranks else ""
    raise DoesNotFit(
        f"load cap {problem.load_cap:g} with {problem.slots - problem.experts} redundant slots: layer {layer} cannot be"
        f" below {lowest[layer]:.3f} of the mean (expert {expert} on at most {replicas} ranks)",
        way_out=f"load cap {np.ceil(lowest[layer] * 1000) / 1000:g}{more}",
    )


def _reachable_budget(problem: PlacementProblem) -> None:
    """Ranks that own fewer slots than before give experts up; those without another replica have to move."""
    held, budget = problem.previous, problem.move_budget
    if held is None or budget is None:
        return
    if budget < 0:
        raise DoesNotFit(f"move budget {budget} is below 0", way_out="0 or more")
    lost = np.maximum(held.owned - problem.owned, 0).sum(axis=1)
    least = int(np.maximum(lost - (held.owned.sum(axis=1) - problem.experts), 0).sum())
    if budget < least:
        raise DoesNotFit(
            f"move budget {budget} with fewer slots on ranks than the previous placement: {least} experts lose theirs",
            way_out=f"a move budget of {least} or more, or the previous slots",
        )
