"""What one rank of the truth loop does: builds its layers, and takes samples of their passes in turn.

Passes over fitted routings are timed stage by stage, in place: after the experts have swept the caches, an exchange
costs over half as much again as alone. Passes over held-out routings are timed whole.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import torch

from moesim.calibration.measure.cpu import cpu_seconds
from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.layer import Layer
from moesim.calibration.operators.operator import Place
from moesim.calibration.truth.setting import Routing, Setting

Kernel = Literal["grouped", "loop"]
KERNELS: tuple[Kernel, ...] = ("grouped", "loop")


WHOLE = "pass"


class Name(NamedTuple):
    """What was timed: a stage of a pass over a routing that costs are fitted on, or the WHOLE of a held-out one."""

    routing: Routing
    kernel: Kernel
    stage: str


@dataclass(frozen=True)
class Samples:
    """CPU seconds of one rank, one per round."""

    rank: int
    seconds: dict[Name, list[float]] = field(default_factory=dict)


def sample_rank(place: Place, setting: Setting) -> Samples:
    """All ranks call it together: the same order everywhere, and all meet before each pass."""
    with torch.inference_mode():
        work = list(_work(place, setting))
        found = Samples(place.peers.rank)
        shuffled = random.Random(setting.seed)
        for turn in range(setting.warm_rounds + setting.rounds):
            shuffled.shuffle(work)
            for routing, kernel, take in work:
                place.peers.barrier()
                taken = take()
                if turn >= setting.warm_rounds:
                    for stage, seconds in taken.items():
                        found.seconds.setdefault(Name(routing, kernel, stage), []).append(seconds)
        return found


Take = Callable[[], dict[str, float]]  # CPU seconds by stage


def _work(place: Place, setting: Setting) -> Iterator[tuple[Routing, Kernel, Take]]:
    sizes = setting.case(setting.fitted[0]).sizes(place.peers.rank)
    weights = Experts.of(setting.case(setting.fitted[0]), place, dtype="fp32", sizes=sizes)
    for kernel in KERNELS:
        for routing in setting.fitted:
            yield routing, kernel, partial(_by_stage, *_layer(place, setting, weights, routing, kernel))
        for routing in setting.held_out:
            yield routing, kernel, partial(_whole, *_layer(place, setting, weights, routing, kernel))


def _whole(layer: Layer, tokens: torch.Tensor) -> dict[str, float]:
    return {WHOLE: cpu_seconds(partial(layer, tokens))}


def _by_stage(layer: Layer, tokens: torch.Tensor) -> dict[str, float]:
    rows, found, before = tokens, {}, time.process_time()
    for stage in layer.stages:
        rows = stage.run(rows)
        after = time.process_time()
        found[stage.name], before = after - before, after
    return found


def _layer(
    place: Place, setting: Setting, weights: Experts, routing: Routing, kernel: Kernel
) -> tuple[Layer, torch.Tensor]:
    routed, rank = setting.route(routing), place.peers.rank
    sizes = routed.group_sizes[rank]
    experts = replace(weights, sizes=sizes, ends=torch.tensor(sizes).cumsum(0).to(torch.int32))
    merging = place.random(routing.tokens, setting.top_k, dtype="fp32").abs()
    layer = Layer.of(routed, rank, experts, merging, loop=kernel == "loop")
    return layer, place.random(routing.tokens, setting.hidden, dtype="fp32")
