"""A run as a Kineto-shaped Chrome trace: Perfetto opens it, and so does Meta's Holistic Trace Analysis.

One process a GPU (pid = rank), one thread a stream, one counter a link. HTA takes an event for a kernel by
`cat: "kernel"`, for communication by its name (version 0.5: "nccl...Kernel", before: "nccl..."), reads `args.device`,
`args.stream`, `args.correlation` and `distributedInfo.rank`, and wants one file a rank (`rank_traces`); a step is an
annotation named `ProfilerStep#N` on a thread of its own. Times are microseconds, with their fractions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.engine import TaskGraph, Timeline
from moesim.studies import Played

Event = dict[str, Any]

MICROSECOND: Final = 1_000_000  # ticks (ps)
MAX_COUNTERS: Final = 32  # links, the busiest; thousands of counters make a trace unreadable


def trace(name: str, played: Played) -> str:
    """The whole run as one JSON document."""
    graph, timeline = played.graph, played.timeline
    events = [*_labels(played, range(graph.num_ranks)), *_kernels(graph, timeline), *_counters(played)]
    return _document(name, 0, graph.num_ranks, played, events)


def rank_traces(name: str, played: Played) -> dict[str, str]:
    """{file name: JSON document}, one per rank, as HTA reads a folder."""
    graph = played.graph
    kernels: dict[int, list[Event]] = {rank: [] for rank in range(graph.num_ranks)}
    for event in _kernels(graph, played.timeline):
        kernels[event["pid"]].append(event)
    return {
        f"rank-{rank}.json": _document(name, rank, graph.num_ranks, played, [*_labels(played, [rank]), *events])
        for rank, events in kernels.items()
    }


def _document(name: str, rank: int, world: int, played: Played, events: list[Event]) -> str:
    device = played.cluster.devices[0]
    body = {
        "schemaVersion": 1,
        "traceName": name,
        "displayTimeUnit": "ms",
        "deviceProperties": [
            {"id": gpu, "name": device.name, "totalGlobalMem": device.memory_bytes} for gpu in range(world)
        ],
        "distributedInfo": {"backend": "nccl", "rank": rank, "world_size": world},
        "traceEvents": events,
    }  # fmt: skip
    return json.dumps(body, allow_nan=False)


def _labels(played: Played, ranks: range | list[int]) -> Iterator[Event]:
    for rank in ranks:
        node = int(played.cluster.node_of[rank])
        yield _label("process_name", rank, 0, {"name": f"GPU {rank} (node {node})"})
        yield _label("process_sort_index", rank, 0, {"sort_index": rank})
        for stream, name in enumerate(played.graph.streams):
            yield _label("thread_name", rank, stream, {"name": f"stream {stream} {name}"})
        yield _step(rank, len(played.graph.streams), played.timeline)


def _step(rank: int, thread: int, timeline: Timeline) -> Event:
    """The one step of the run, from its start to the end of its last task."""
    end = int(timeline.end.max(initial=0))
    return {
        "ph": "X", "cat": "user_annotation", "name": "ProfilerStep#0", "pid": rank, "tid": thread, "ts": 0.0,
        "dur": end / MICROSECOND,
    }  # fmt: skip


def _label(kind: str, pid: int, tid: int, arguments: dict[str, Any]) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": arguments}


def _kernels(graph: TaskGraph, timeline: Timeline) -> Iterator[Event]:
    """One complete event for each lane that ran and took time, in order of start."""
    for lane in np.argsort(timeline.start, kind="stable").tolist():
        start, end, task = int(timeline.start[lane]), int(timeline.end[lane]), int(timeline.task[lane])
        if end > start >= 0:
            rank, stream = int(timeline.rank[lane]), int(graph.stream[task])
            yield {
                "ph": "X", "cat": "kernel", "name": _name(graph, task), "pid": rank, "tid": stream,
                "ts": start / MICROSECOND, "dur": (end - start) / MICROSECOND,
                "args": {
                    "device": rank, "stream": stream, "correlation": lane, "layer": int(graph.layer[task]),
                    "micro_batch": int(graph.micro_batch[task]), "class": graph.classes[graph.task_class[task]],
                },
            }  # fmt: skip


def _name(graph: TaskGraph, task: int) -> str:
    return f"ncclDevKernel_{graph.name[task]}" if graph.coflow[task] >= 0 else graph.name[task]


def _counters(played: Played) -> Iterator[Event]:
    """GB/s of the busiest links; each transfer counts with its mean rate from its first release to its last byte."""
    timeline, links = played.timeline, played.graph.num_ranks  # one process after the last rank
    used = timeline.link_bytes / played.link_capacity
    busiest = [int(link) for link in np.argsort(-used, kind="stable")[:MAX_COUNTERS] if used[link] > 0]
    if busiest:
        yield _label("process_name", links, 0, {"name": "links (mean GB/s of each transfer)"})
        yield _label("process_sort_index", links, 0, {"sort_index": links})
    for link in busiest:
        for tick, rate in zip(*link_rate(timeline, link), strict=True):
            yield {
                "ph": "C", "name": played.link_name[link], "pid": links, "tid": 0, "ts": int(tick) / MICROSECOND,
                "args": {"GB/s": round(float(rate) / 1e9, 6)},
            }  # fmt: skip


def link_rate(timeline: Timeline, link: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(ticks int64[n], B/s float64[n]): a step function, the rate from each tick on; it ends at 0."""
    moved = timeline.transfers
    rows = np.flatnonzero((moved.link == link) & (moved.end > moved.start))
    rate = moved.bytes[rows] / (moved.end - moved.start)[rows] * 1e12
    ticks, place = np.unique(np.concatenate((moved.start[rows], moved.end[rows])), return_inverse=True)
    change = np.zeros(len(ticks))
    np.add.at(change, place, np.concatenate((rate, -rate)))
    level = np.cumsum(change)
    level[np.abs(level) < 1e-6 * np.max(rate, initial=0.0)] = 0.0
    return ticks, level
