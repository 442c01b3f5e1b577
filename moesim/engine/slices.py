"""A stretch of a TaskGraph as a graph of its own: to play one layer instead of a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.engine.graph import TaskGraph

Int64s = npt.NDArray[np.int64]


def of_tasks(graph: TaskGraph, tasks: Int64s) -> TaskGraph:
    """tasks int64[k] in ascending order -> the graph of these; what they wait for outside of them is met at once."""
    new = np.full(graph.num_tasks, -1, dtype=np.int32)
    new[tasks] = np.arange(len(tasks), dtype=np.int32)
    lanes, lane_ptr = _rows(graph.lane_ptr, tasks)
    edges, edge_ptr = _rows(graph.edge_ptr, tasks)
    kept = new[graph.edge_from[edges]] >= 0
    used = graph.coflow[tasks]
    numbers = np.cumsum(used >= 0) - 1
    return replace(
        graph,
        name=tuple(graph.name[task] for task in tasks.tolist()),
        task_class=graph.task_class[tasks],
        stream=graph.stream[tasks],
        layer=graph.layer[tasks],
        micro_batch=graph.micro_batch[tasks],
        round=graph.round[tasks],
        lane_ptr=lane_ptr,
        lane_rank=graph.lane_rank[lanes],
        lane_seconds=graph.lane_seconds[lanes],
        edge_ptr=np.concatenate(([0], np.cumsum(kept)))[edge_ptr],
        edge_from=new[graph.edge_from[edges[kept]]],
        edge_join=graph.edge_join[edges[kept]],
        coflow=np.where(used >= 0, numbers, -1).astype(np.int32),
        coflows=tuple(graph.coflows[number] for number in used[used >= 0].tolist()),
    )


def _rows(ptr: Int64s, tasks: Int64s) -> tuple[Int64s, Int64s]:
    """CSR rows of the tasks -> (their items, offsets of the new rows)."""
    counts = ptr[tasks + 1] - ptr[tasks]
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    items = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts) + np.repeat(ptr[tasks], counts)
    return items.astype(np.int64), offsets
