"""What is drawn beside the document of a placement run: load before and after, traffic, replicas, moves."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement
from moesim.placement.loads import rank_loads
from moesim.placement.migration import Migration
from moesim.report.pictures import MAX_MATRIX, by_node
from moesim.studies import Outcome

MAX_LINKS: Final = 12


def place_pictures(outcome: Outcome) -> dict[str, Any]:
    """Plain data; "before" is the baseline's, "after" the best one's, on the windows that decided."""
    before, after = outcome.baseline.placement, outcome.placement
    return {
        "before": outcome.baseline.strategy,
        "after": outcome.best.strategy,
        "windows": outcome.split.deciding.name,
        "load": {"before": _load(outcome, before), "after": _load(outcome, after)},
        "traffic": _traffic(outcome, before, after),
        "replicas": after.replicas.tolist(),
        "moves": None if outcome.migration is None else _moves(outcome.migration, after),
        "links": None if outcome.migration is None else _links(outcome),
    }


def _load(outcome: Outcome, placement: Placement) -> list[list[float]]:
    """[layers, ranks]: choices over the mean of the layer, mean over windows; a slow rank's count for more."""
    loads = rank_loads(outcome.problem, placement, outcome.split.deciding) / outcome.problem.speed
    mean = loads.mean(axis=2, keepdims=True)
    table: list[list[float]] = np.round((loads / np.where(mean > 0, mean, 1)).mean(axis=0), 4).tolist()
    return table


def _traffic(outcome: Outcome, before: Placement, after: Placement) -> dict[str, Any] | None:
    """Bytes from GPU to GPU (node to node where there are many) of the simulated step; None where none was."""
    clock = outcome.problem.clock
    if outcome.judge != "step_time" or clock is None:
        return None
    sent = [clock.lowered(placement, outcome.split.deciding).sent for placement in (before, after)]
    many = len(sent[0]) > MAX_MATRIX
    if many:
        sent = [by_node(one, outcome.problem.node_of_rank.astype(np.int32)) for one in sent]
    return {"unit": "node" if many else "GPU", "before": sent[0].tolist(), "after": sent[1].tolist()}


def _moves(migration: Migration, after: Placement) -> list[list[int]]:
    """[layers, ranks]: experts that arrive."""
    table: npt.NDArray[np.int64] = np.zeros((after.num_layers, after.num_ranks), dtype=np.int64)
    np.add.at(table, (migration.moves.layer, migration.moves.target), 1)
    counts: list[list[int]] = table.tolist()
    return counts


def _links(outcome: Outcome) -> list[dict[str, Any]]:
    """The links that carry most of what moves."""
    assert outcome.migration is not None and outcome.problem.clock is not None
    names, carried = outcome.problem.clock.plan.fabric.link_name, outcome.migration.link_bytes
    hottest = np.argsort(-carried, kind="stable")[:MAX_LINKS]
    return [{"name": names[link], "bytes": int(carried[link])} for link in hottest.tolist() if carried[link] > 0]
