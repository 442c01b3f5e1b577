"""How long ranks wait for each other in DeepSeek's profiled DualPipe chunk, beside lanes whose rows spread as there.

The profile is of one rank of 64: its notify kernels last until all others have come (32.6 ms in a chunk of four layers
forward and backward). Its own rows differ by 8.0 % from layer to layer (standard deviation), though routing was forced
to balance. Here every lane draws its rows of every layer and pass with that spread; all begin the chunk together, and
exchanges have even bytes. Nothing is fitted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.schedules.pipelines import Pass, Slot
from moesim.studies.validation.rows import Row, number
from moesim.studies.validation.validation import Point
from moesim.training import Job
from moesim.training.expert_work import ExpertWork
from moesim.training.routed import RoutedJob
from moesim.training.slots import Rows

SPREAD: Final = 0.08
DRAWS: Final = 8
LEAST: Final = 0.1  # of a lane's mean rows: a draw below it is none
NAMES: Final = {
    "combine(B)": "combine_backward", "dispatch(F)": "dispatch", "dispatch(B)": "dispatch_backward",
    "combine(F)": "combine",
}  # fmt: skip


class Waited(NamedTuple):
    """ms of a lane and chunk: by operation, in each of its layers in the order in which they come, means; of all draws
    and lanes float64[draws x lanes]; with equal lanes.
    """

    layers: dict[str, npt.NDArray[np.float64]]
    lanes: npt.NDArray[np.float64]
    equal: float


def waited(job: Job) -> Waited:
    """Of a slot with two passes in the middle of the pipeline. Raises BadInput."""
    whole = RoutedJob(job, Sequences(Balanced(job.model), 1))
    slot = _slot(job)
    begin = np.zeros(whole.island.world, dtype=np.int64)
    even = [whole.rows(job.stages[act.stage], 0, np.array([act.micro_batch])) for act in slot]
    pattern = whole.pattern(slot)
    layers: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in NAMES.values()}
    lanes = []
    for draw in range(DRAWS):
        rows = [(_spread(whole, one, draw, act), 0) for act, one in enumerate(even)]
        found = [(name, waits / 1e9) for name, waits in pattern.waits(rows, begin) if name in layers]
        for name, own in layers.items():
            own.append(np.array([waits.mean() for of, waits in found if of == name]))
        lanes.append(np.sum([waits for _, waits in found], axis=0))
    equal = sum(int(waits.max()) for _, waits in pattern.waits([(one, 0) for one in even], begin)) / 1e9
    return Waited({name: np.mean(own, axis=0) for name, own in layers.items()}, np.concatenate(lanes), equal)


def _slot(job: Job) -> Slot:
    """Of two passes of whole expert stages."""
    order = job.schedule.orders[job.pipeline // 2 - 1]
    return next(slot for slot in order if len(slot) > 1 and {act.what for act in slot} == {Pass.F, Pass.B})


def _spread(whole: RoutedJob, even: Rows, draw: int, act: int) -> Rows:
    """The same, each lane's rows in each layer as it draws them."""
    job, plan = whole.job, whole.plans[1]
    slots = job.model.num_experts // whole.island.expert_parallel
    layers, lanes = next(iter(even.experts.values())).shape[1:]
    each = job.tokens_here * job.model.top_k * lanes / job.model.num_experts
    factor = np.maximum(1 + SPREAD * streams.stream(draw, f"rows of lanes {act}").normal(size=(layers, lanes)), LEAST)
    rows = np.rint(np.repeat(each * factor[:, :, None], slots, axis=2)).astype(np.int64)
    ticks = ExpertWork(plan, slots).ps(rows, plan.dispatch.slowdown)
    return even._replace(experts={key: ps.reshape(1, layers, lanes) for key, ps in ticks.items()})


def points(job: Job, rows: Sequence[Row]) -> tuple[list[Point], str]:
    """Of each operation and of all, and what is said of them."""
    found, measured = waited(replace(job, recompute=job.recompute - {"moe"})), _measured(rows)
    of = {"paper": "DeepSeek DualPipe", "of": "waiting"}
    predicted = {phase: float(found.layers[name].sum()) for phase, name in NAMES.items()}
    made = [Point({**of, "case": phase}, "ms", measured[phase], predicted[phase]) for phase in NAMES]
    made.append(Point({**of, "case": "all"}, "ms", sum(measured[phase] for phase in NAMES), sum(predicted.values())))
    by_layer = np.sum(list(found.layers.values()), axis=0)
    low, high = np.quantile(found.lanes, (0.1, 0.9))
    return made, (
        f"64 lanes, rows that spread {SPREAD:.0%}, {DRAWS} draws, nothing fitted: p10 to p90 of lanes {low:.1f} to "
        f"{high:.1f} ms; the last layer waits {by_layer[-1] / by_layer[0]:.1f} times as long as the first; equal lanes "
        f"{found.equal:g} ms"
    )


def _measured(rows: Sequence[Row]) -> Mapping[str, float]:
    """ms of notify kernels by operation."""
    found = defaultdict[str, float](float)
    for row in rows:
        found[row["phase"]] += sum(_notify(row)) / 1e3
    return found


def _notify(row: Row) -> Iterator[float]:
    for part in row["busy_by_class_us"].split(";"):
        name, _, taken = part.partition("=")
        if name.endswith("notify"):
            yield number({"us": taken}, "us")
