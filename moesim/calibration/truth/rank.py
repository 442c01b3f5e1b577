"""What one rank of the truth loop does: builds its layers, and takes samples of passes and of stages in turn."""

from __future__ import annotations

import random
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


class Name(NamedTuple):
    """What was timed: a stage of a routing that costs are fitted on, or a whole pass ("") of a held-out one."""

    routing: Routing
    kernel: Kernel
    stage: str


@dataclass(frozen=True)
class Samples:
    """CPU seconds of one rank, one per round."""

    rank: int
    seconds: dict[Name, list[float]] = field(default_factory=dict)


def sample_rank(place: Place, setting: Setting) -> Samples:
    """All ranks call it together: the same order everywhere, and all meet before each sample."""
    with torch.inference_mode():
        work = dict(_work(place, setting))
        found = Samples(place.peers.rank, {name: [] for name in work})
        shuffled, order = random.Random(setting.seed), list(work)
        for turn in range(setting.warm_rounds + setting.rounds):
            shuffled.shuffle(order)
            for name in order:
                place.peers.barrier()
                seconds = cpu_seconds(work[name])
                if turn >= setting.warm_rounds:
                    found.seconds[name].append(seconds)
        return found


def _work(place: Place, setting: Setting) -> Iterator[tuple[Name, Callable[[], torch.Tensor]]]:
    weights = Experts.of(setting.case(setting.fitted[0]), place, dtype="fp32", sizes=_local(place, setting))
    for routing in setting.fitted:
        for kernel in KERNELS:
            yield from _stages(place, setting, weights, routing, kernel)
    for routing in setting.held_out:
        for kernel in KERNELS:
            layer, tokens = _layer(place, setting, weights, routing, kernel)
            yield Name(routing, kernel, ""), partial(layer, tokens)


def _stages(
    place: Place, setting: Setting, weights: Experts, routing: Routing, kernel: Kernel
) -> Iterator[tuple[Name, Callable[[], torch.Tensor]]]:
    """Each stage alone, on rows that the stage before it left; what the kernels share is taken once."""
    layer, rows = _layer(place, setting, weights, routing, kernel)
    for stage in layer.stages:
        if stage.name == "experts" or kernel == "grouped":
            yield Name(routing, kernel, stage.name), partial(stage.run, rows)
        rows = stage.run(rows)


def _layer(
    place: Place, setting: Setting, weights: Experts, routing: Routing, kernel: Kernel
) -> tuple[Layer, torch.Tensor]:
    routed, rank = setting.route(routing), place.peers.rank
    sizes = routed.group_sizes[rank]
    experts = replace(weights, sizes=sizes, ends=torch.tensor(sizes).cumsum(0).to(torch.int32))
    merging = place.random(routing.tokens, setting.top_k, dtype="fp32").abs()
    layer = Layer.of(routed, rank, experts, merging, loop=kernel == "loop")
    return layer, place.random(routing.tokens, setting.hidden, dtype="fp32")


def _local(place: Place, setting: Setting) -> tuple[int, ...]:
    return setting.case(setting.fitted[0]).sizes(place.peers.rank)
