"""How long ranks wait for each other in DeepSeek's profiled DualPipe chunk, beside lanes whose rows spread as there.

The profile is of one rank of 64: its notify kernels last until all others have come (32.6 ms in a chunk of four layers
forward and backward). Its own rows differ by 8.0 % from layer to layer (standard deviation), though routing was forced
to balance. Here every lane draws its rows of every layer and pass with that spread; all begin the chunk together, and
exchanges have even bytes. Nothing is fitted. It is played twice: all by moesim, and with transfers that last as long,
once all ranks have come, as in the profile, where they take 1.3 to 1.8 times as long as DeepEP's published rates say:
the longer the dispatch of the forward pass, the more of what its ranks are late by is over when it ends.
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

PAPER: Final = "DeepSeek DualPipe"
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


def waited(job: Job, lasting: Mapping[str, float] | None = None) -> Waited:
    """Of a slot with two passes in the middle of the pipeline; lasting: ms of transfers by operation, where they are
    known. Raises BadInput.
    """
    whole = RoutedJob(job, Sequences(Balanced(job.model), 1))
    slot = _slot(job)
    begin = np.zeros(whole.island.world, dtype=np.int64)
    even = [whole.rows(job.stages[act.stage], 0, np.array([act.micro_batch])) for act in slot]
    if lasting is not None:
        even = [_lasting(one, act.what, lasting) for one, act in zip(even, slot, strict=True)]
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


def _lasting(even: Rows, what: Pass, ms: Mapping[str, float]) -> Rows:
    """The same, transfers of this pass so long whatever their bytes."""
    names = {False: "dispatch(F)", True: "combine(F)"} if what == Pass.F else {False: "combine(B)", True: "dispatch(B)"}
    sizes = {back: [np.zeros_like(size) for size in own] for back, own in even.sizes.items()}
    starts = {
        back: [np.full_like(start, round(ms[names[back]] * 1e9)) for start in own] for back, own in even.starts.items()
    }
    return even._replace(sizes=sizes, starts=starts)


def points(job: Job, rows: Sequence[Row]) -> tuple[list[Point], str]:
    """Of each operation and of all, played both ways, and what is said of them."""
    job = replace(job, recompute=job.recompute - {"moe"})
    waiting, lasting = (_measured(rows, notify=one) for one in (True, False))
    layers = len({row["layer"] for row in rows})
    each = {phase: ms / layers for phase, ms in lasting.items()}
    own, as_there = waited(job), waited(job, each)
    named = {"waiting": own, "waiting, transfers as profiled": as_there}
    made = [point for of, found in named.items() for point in _compared(of, found, waiting)]
    return made, f"64 lanes, rows that spread {SPREAD:.0%}, {DRAWS} draws, nothing fitted: " + "; ".join(
        f"{of}: {_told(found)}" for of, found in named.items()
    )


def _compared(of: str, found: Waited, measured: Mapping[str, float]) -> Iterator[Point]:
    """Of each operation and of all."""
    predicted = {phase: float(found.layers[name].sum()) for phase, name in NAMES.items()}
    for phase in NAMES:
        yield Point({"paper": PAPER, "of": of, "case": phase}, "ms", measured[phase], predicted[phase])
    total = sum(measured[phase] for phase in NAMES)
    yield Point({"paper": PAPER, "of": of, "case": "all"}, "ms", total, sum(predicted.values()))


def _told(found: Waited) -> str:
    by_layer, (low, high) = np.sum(list(found.layers.values()), axis=0), np.quantile(found.lanes, (0.1, 0.9))
    taken = {name: own.sum() for name, own in found.layers.items()}
    least, most = min(taken, key=lambda name: taken[name]), max(taken, key=lambda name: taken[name])
    return (
        f"p10 to p90 of lanes {low:.1f} to {high:.1f} ms, least before {least}, most before {most}, the last layer "
        f"{by_layer[-1] / by_layer[0]:.1f} times as long as the first, equal lanes {found.equal:g} ms"
    )


def _measured(rows: Sequence[Row], *, notify: bool) -> Mapping[str, float]:
    """ms by operation of the kernels of its transfer in which ranks wait for each other, or of the others."""
    found = defaultdict[str, float](float)
    for row in rows:
        found[row["phase"]] += sum(_kernels(row, notify=notify)) / 1e3
    return found


def _kernels(row: Row, *, notify: bool) -> Iterator[float]:
    for part in row["busy_by_class_us"].split(";"):
        name, _, taken = part.partition("=")
        if name.endswith("notify") == notify:
            yield number({"us": taken}, "us")
