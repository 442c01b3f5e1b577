"""The trace keeps to the Chrome trace format and to what HTA reads, and loses no time and no byte."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, TypeAdapter

from moesim.report import perfetto
from moesim.studies import Result

HTA_COMMUNICATION = [re.compile(r"^nccl.*Kernel"), re.compile(r"^nccl|^hip|^hccl|.*ncclKernel.*")]  # 0.5.0, and before


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Metadata(Strict):
    """Chrome trace event format: process and thread names."""

    ph: Literal["M"]
    name: Literal["process_name", "process_sort_index", "thread_name"]
    pid: NonNegativeInt
    tid: NonNegativeInt
    ts: NonNegativeInt
    args: dict[Literal["name", "sort_index"], str | int]


class KernelArguments(Strict):
    device: NonNegativeInt
    stream: NonNegativeInt
    correlation: NonNegativeInt
    layer: int
    micro_batch: NonNegativeInt
    task_class: str = Field(alias="class")


class Kernel(Strict):
    """Chrome trace event format: a complete event, with Kineto's arguments."""

    ph: Literal["X"]
    cat: Literal["kernel"]
    name: str
    pid: NonNegativeInt
    tid: NonNegativeInt
    ts: NonNegativeFloat
    dur: PositiveFloat
    args: KernelArguments


class Step(Strict):
    """Kineto: an annotation of a whole step."""

    ph: Literal["X"]
    cat: Literal["user_annotation"]
    name: Annotated[str, Field(pattern=r"^ProfilerStep#\d+$")]
    pid: NonNegativeInt
    tid: NonNegativeInt
    ts: NonNegativeFloat
    dur: PositiveFloat


class Counter(Strict):
    """Chrome trace event format: a counter."""

    ph: Literal["C"]
    name: str
    pid: NonNegativeInt
    tid: NonNegativeInt
    ts: NonNegativeFloat
    args: dict[Literal["GB/s"], NonNegativeFloat]


class Device(Strict):
    id: NonNegativeInt
    name: str
    totalGlobalMem: int


class Distributed(Strict):
    backend: Literal["nccl"]
    rank: NonNegativeInt
    world_size: int = Field(ge=1)


class Trace(Strict):
    schemaVersion: Literal[1]
    traceName: str
    displayTimeUnit: Literal["ms"]
    deviceProperties: list[Device]
    distributedInfo: Distributed
    traceEvents: list[Metadata | Kernel | Step | Counter]


@pytest.fixture(scope="module")
def trace(result: Result) -> dict[str, Any]:
    text = perfetto.trace(result.name, result.played)
    TypeAdapter(Trace).validate_json(text)
    found: dict[str, Any] = json.loads(text)
    return found


def kernels(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]


def test_every_lane_that_took_time_is_there(result: Result, trace: dict[str, Any]) -> None:
    timeline = result.played.timeline
    took = timeline.end - timeline.start
    assert len(kernels(trace)) == np.count_nonzero(took)
    assert sum(event["dur"] for event in kernels(trace)) == pytest.approx(took.sum() / 1e6)
    assert (
        max(event["ts"] + event["dur"] for event in kernels(trace)) <= result.metrics["step_time_s"].value * 1e6 + 1e-6
    )


def test_a_step_is_annotated_on_every_rank_from_start_to_end(result: Result, trace: dict[str, Any]) -> None:
    steps = [event for event in trace["traceEvents"] if event["name"] == "ProfilerStep#0"]
    threads = {(event["pid"], event["tid"]) for event in kernels(trace)}
    assert [event["pid"] for event in steps] == list(range(8))
    assert all(event["dur"] == pytest.approx(result.played.timeline.end.max() / 1e6) for event in steps)
    assert not threads & {(event["pid"], event["tid"]) for event in steps}


def test_hta_takes_transfers_and_nothing_else_for_communication(result: Result, trace: dict[str, Any]) -> None:
    graph = result.played.graph
    transfers = {graph.classes[graph.task_class[task]] for task in np.flatnonzero(graph.coflow >= 0)}
    for pattern in HTA_COMMUNICATION:
        assert {event["args"]["class"] for event in kernels(trace) if pattern.match(event["name"])} == transfers


def test_correlations_are_unique_and_streams_are_threads(trace: dict[str, Any]) -> None:
    found = [event["args"]["correlation"] for event in kernels(trace)]
    assert len(set(found)) == len(found)
    assert all(
        (event["pid"], event["tid"]) == (event["args"]["device"], event["args"]["stream"]) for event in kernels(trace)
    )


def test_a_link_s_counter_integrates_to_its_bytes_and_ends_at_zero(result: Result) -> None:
    timeline = result.played.timeline
    link = int(np.argmax(timeline.link_bytes))
    ticks, rate = perfetto.link_rate(timeline, link)
    assert np.sum(rate[:-1] * np.diff(ticks)) / 1e12 == pytest.approx(timeline.link_bytes[link])
    assert rate[-1] == 0


def test_a_folder_gets_one_file_a_rank(result: Result, trace: dict[str, Any]) -> None:
    files = perfetto.rank_traces(result.name, result.played)
    read = [json.loads(text) for text in files.values()]
    assert [one["distributedInfo"]["rank"] for one in read] == list(range(8))
    assert sum(len(kernels(one)) for one in read) == len(kernels(trace))
    for text in files.values():
        TypeAdapter(Trace).validate_json(text)
