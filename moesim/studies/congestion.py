"""The congestion report of a step: what each link carried, which are hot, which ranks and experts make them so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.engine import TaskGraph, Timeline
from moesim.network import Coflow
from moesim.step import Lowered
from moesim.studies.build import Built
from moesim.studies.ladder import Ladder

HOT_SPOTS: Final = 8
CAUSES: Final = 3  # ranks a way and experts that are named for each of them
UNKNOWN: Final = "port loads know how much a link carries, not when it is full (network.level: fluid does)"

Int64s = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]


def congestion(built: Built, lowered: Lowered, ladder: Ladder) -> dict[str, Any]:
    """Columns of all links that carried bytes; the hot spots, hottest first; senders that each rank hears at once.

    utilisation: bytes over what the link could have carried in the step; saturated_s: seconds in which it was full,
    None with a reason where the step was not played by the fluid network. Shares are of the link's bytes.
    """
    fabric, timeline, capacity = built.plan.fabric, ladder.timeline, ladder.capacity
    used = ladder.utilisation
    order = np.argsort(-used, kind="stable")
    order = order[timeline.link_bytes[order] > 0]
    hot = order[:HOT_SPOTS]
    shares = _shares(lowered.graph, timeline, hot)
    full = timeline.link_saturated
    columns = {
        "link": [fabric.link_name[link] for link in order],
        "capacity": capacity[order].tolist(),
        "bytes": timeline.link_bytes[order].tolist(),
        "utilisation": used[order].tolist(),
        "busy_s": timeline.link_busy[order].tolist(),
        "saturated_s": None if full is None else full[order].tolist(),
    }
    spots = [
        {name: None if column is None else column[place] for name, column in columns.items()}
        | _causes(shares[place], built, lowered)
        for place in range(len(hot))
    ]
    return {
        "hot_spots": spots,
        "links": columns,
        "saturation": "seconds in which all of the link's capacity was taken and held some flow back"
        if full is not None
        else UNKNOWN,
        "incast_degree": _incast(lowered.graph).tolist(),
    }


def _transfers(graph: TaskGraph) -> Iterator[tuple[Coflow, npt.NDArray[np.int32]]]:
    """Each coflow, and int32[R] the rank of each of its lanes."""
    for task in np.flatnonzero(graph.coflow >= 0).tolist():
        yield graph.coflows[graph.coflow[task]], graph.lane_rank[graph.lane_ptr[task] : graph.lane_ptr[task + 1]]


def _carried(graph: TaskGraph, timeline: Timeline) -> Iterator[tuple[Int64s, Int64s, Ints, Int64s]]:
    """Of each coflow source, destination (ranks), path and bytes of its flows, as faults left them."""
    for task in np.flatnonzero(graph.coflow >= 0).tolist():
        coflow, ranks = graph.coflows[graph.coflow[task]], graph.lane_rank[graph.lanes(task)]
        source, destination, path, size = coflow.source, coflow.destination, coflow.path, coflow.bytes
        if (known := timeline.carried.get(task)) is not None:
            source, destination = source[known.flow], destination[known.flow]
            path, size = known.path, known.bytes
        yield ranks[source], ranks[destination], path, size


def _shares(graph: TaskGraph, timeline: Timeline, hot: Int64s) -> npt.NDArray[np.float64]:
    """float64[hot links, 2, ranks]: the share of the link's bytes that each rank sends over it, and receives."""
    place = np.full(timeline.num_links + 1, -1, dtype=np.int64)
    place[hot] = np.arange(len(hot))
    total = np.zeros((len(hot), 2, graph.num_ranks))
    for source, destination, path, size in _carried(graph, timeline):
        flow, hop = np.nonzero(place[path] >= 0)
        link = place[path[flow, hop]]
        for way, ends in enumerate((source, destination)):
            np.add.at(total[:, way], (link, ends[flow]), size[flow])
    return np.asarray(total / np.maximum(total.sum(axis=2, keepdims=True), 1))


def _causes(share: npt.NDArray[np.float64], built: Built, lowered: Lowered) -> dict[str, Any]:
    """share float64[2, ranks] -> who sends and receives most, and the busiest experts of the rank that does either."""
    most = int(np.argmax(share.max(axis=0)))
    ways = {
        name: [
            {"rank": int(rank), "share": float(one[rank])}
            for rank in np.argsort(-one, kind="stable")[:CAUSES]
            if one[rank] > 0
        ]
        for name, one in zip(("senders", "receivers"), share, strict=True)
    }
    return {**ways, "experts": _busiest_experts(most, built, lowered)}


def _busiest_experts(rank: int, built: Built, lowered: Lowered) -> list[dict[str, int]]:
    """Experts on the rank by their rows in the step; what has several replicas counts with an even part of them."""
    placement = built.plan.placement
    layout = built.plan.layout
    seat = rank % layout.island // layout.expert_tensor_parallel
    layer, slot = np.nonzero(placement.filled & (placement.slot_rank == seat))
    expert = placement.slot_expert[layer, slot]
    rows = lowered.load[layer, expert] / placement.replicas[layer, expert]
    return [
        {
            "rank": rank,
            "layer": int(built.model.moe_layers[layer[at]]),
            "expert": int(expert[at]),
            "rows": round(float(rows[at])),
        }
        for at in np.argsort(-rows, kind="stable")[:CAUSES].tolist()
    ]


def _incast(graph: TaskGraph) -> Int64s:
    """int64[ranks]: the most ranks that send to this one in one collective."""
    most = np.zeros(graph.num_ranks, dtype=np.int64)
    for coflow, ranks in _transfers(graph):
        met = np.zeros((len(ranks), len(ranks)), dtype=np.bool_)
        moves = coflow.bytes > 0
        met[coflow.destination[moves], coflow.source[moves]] = True
        most[ranks] = np.maximum(most[ranks], met.sum(axis=1))
    return most
