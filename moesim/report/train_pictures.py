"""What is drawn beside the document of a training step: small and plain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from moesim.report.gantt import check_ranks
from moesim.studies.training import TrainResult
from moesim.studies.training.told import SYNC, UPDATE, Done

SLOTS: Final = 6000  # drawn; the first of each rank, if there are more
MICROSECOND: Final = 1_000_000  # ps
KINDS: Final = {"F": "forward", "B": "backward", "D": "gradients of inputs", "W": "gradients of weights"}


def train_pictures(result: TrainResult, chosen: tuple[int, ...] = ()) -> dict[str, Any]:
    """The name, and bars of the pipeline in us, of the `chosen` ranks or of all. Raises BadInput."""
    every = 1 + max((one.rank for one in result.done), default=0)
    check_ranks(chosen, every)
    ranks = chosen or tuple(range(every))
    each = max(SLOTS // len(ranks), 1)
    shown = [one for rank in ranks for one in [d for d in result.done if d.rank == rank][:each]]
    return {
        "name": result.name,
        "left_out": sum(one.rank in ranks for one in result.done) - len(shown),
        "slots": {
            "rank": [one.rank for one in shown], "what": [one.what for one in shown],
            "kind": [kind_of(one) for one in shown], "start_us": [one.start / MICROSECOND for one in shown],
            "length_us": [(one.end - one.start) / MICROSECOND for one in shown],
        },
    }  # fmt: skip


def kind_of(one: Done) -> str:
    """What colours a bar: a pass, two that overlap, or what follows the last one."""
    if one.what in (SYNC, UPDATE):
        return one.what
    return "forward and backward" if "+" in one.what else KINDS[one.what[0]]


def train_trace(result: TrainResult) -> str:
    """A Kineto-shaped Chrome trace: a process a rank of the pipeline (one GPU of it), an event a slot."""
    body = {
        "schemaVersion": 1, "traceName": result.name, "displayTimeUnit": "ms",
        "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": result.provenance["gpus"]},
        "traceEvents": [*_labels(result), *_events(result)],
    }  # fmt: skip
    return json.dumps(body, allow_nan=False)


def _labels(result: TrainResult) -> Iterator[dict[str, Any]]:
    for stage in result.provenance["stages"]:
        rank, layers = stage["rank"], ", ".join(f"{first}-{last - 1}" for first, last in stage["layers"])
        for kind, name in (("process_name", f"pipeline rank {rank} (layers {layers})"), ("thread_name", "passes")):
            yield {"ph": "M", "name": kind, "pid": rank, "tid": 0, "ts": 0, "args": {"name": name}}


def _events(result: TrainResult) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(sorted(result.done, key=lambda one: (one.start, one.rank))):
        if one.end > one.start:
            name = "ncclDevKernel_gradients_and_parameters" if one.what == SYNC else one.what
            yield {
                "ph": "X", "cat": "kernel", "name": name, "pid": one.rank, "tid": 0, "ts": one.start / MICROSECOND,
                "dur": (one.end - one.start) / MICROSECOND,
                "args": {"device": one.rank, "stream": 0, "correlation": number, "kind": kind_of(one)},
            }  # fmt: skip
