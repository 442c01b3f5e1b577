"""A window of the timeline as bars: a few ranks, the layers in the middle of the step, every stream."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.engine import TaskGraph, Timeline
from moesim.errors import BadInput

MAX_RANKS: Final = 8
MAX_BARS: Final = 4000
MICROSECOND: Final = 1_000_000  # ticks (ps)

Ints = npt.NDArray[np.int64]


def gantt(graph: TaskGraph, timeline: Timeline, chosen: tuple[int, ...] = ()) -> dict[str, Any]:
    """Columns of bars (row, class, task name, layer, micro-batch, start and length in us) and the rows' labels.

    Rows are (rank, stream) pairs of the `chosen` ranks, by default of up to MAX_RANKS, spread evenly over all ranks
    ordered by their busy time, so that the fullest and the emptiest are among them. Lanes that never ran, or took no
    time, are left out. Raises BadInput for a rank that is not there.
    """
    first, last, layers = window(graph, timeline)
    inside = (timeline.end > timeline.start) & (timeline.start < last) & (timeline.end > first)
    check_ranks(chosen, graph.num_ranks)
    ranks = np.array(chosen) if chosen else _spread_of_ranks(graph, timeline, np.flatnonzero(inside))
    lanes = np.flatnonzero(inside & np.isin(timeline.rank, ranks))[:MAX_BARS]
    task = timeline.task[lanes]
    rows = [(int(rank), stream) for rank in ranks for stream in range(len(graph.streams))]
    number = {row: index for index, row in enumerate(rows)}
    return {
        "first_us": first / MICROSECOND,
        "last_us": last / MICROSECOND,
        "step_us": timeline.step_ps / MICROSECOND,
        "layers": layers,
        "rows": [{"rank": rank, "stream": graph.streams[stream]} for rank, stream in rows],
        "ranks_of": graph.num_ranks,
        "chosen": bool(chosen),
        "classes": list(graph.classes),
        "class": graph.task_class[task].tolist(),
        "row": [number[int(timeline.rank[lane]), int(graph.stream[timeline.task[lane]])] for lane in lanes],
        "layer": graph.layer[task].tolist(),
        "micro_batch": graph.micro_batch[task].tolist(),
        "start_us": (timeline.start[lanes] / MICROSECOND).tolist(),
        "length_us": ((timeline.end - timeline.start)[lanes] / MICROSECOND).tolist(),
    }


def check_ranks(chosen: tuple[int, ...], ranks: int) -> None:
    """Raises BadInput for a rank that is not there."""
    if chosen and max(chosen) >= ranks:
        raise BadInput(f"there is no rank {max(chosen)}, but {ranks}", where="--ranks", way_out=f"0 to {ranks - 1}")


def window(graph: TaskGraph, timeline: Timeline) -> tuple[int, int, list[int]]:
    """(first tick, last tick, layers): the first pass through the two middle layers; the whole step if it has few."""
    layers = np.unique(graph.layer[graph.layer >= 0])
    whole = (timeline.origin, timeline.origin + timeline.step_ps, layers.tolist())
    if len(layers) < 4:
        return whole
    middle = len(layers) // 2
    shown = layers[middle : middle + 2]
    first, last = (_first_start(graph, timeline, layer) for layer in (shown[0], layers[middle + 1] + 1))
    return (first, last, shown.tolist()) if first < last else whole


def _first_start(graph: TaskGraph, timeline: Timeline, layer: int) -> int:
    """When the first rank begins the first task of a layer; the end of the step where there is none."""
    tasks = np.flatnonzero(graph.layer == layer)
    if not len(tasks):
        return timeline.origin + timeline.step_ps
    return int(timeline.start[graph.lanes(int(tasks[0]))].min())


def _spread_of_ranks(graph: TaskGraph, timeline: Timeline, lanes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The ranks to show, in order of number."""
    computes = lanes[graph.coflow[timeline.task[lanes]] < 0]
    busy = np.zeros(graph.num_ranks)
    np.add.at(busy, timeline.rank[computes], (timeline.end - timeline.start)[computes])
    order = np.argsort(busy, kind="stable")
    picks = np.linspace(0, len(order) - 1, min(MAX_RANKS, len(order))).round().astype(int)
    return np.sort(order[picks])
