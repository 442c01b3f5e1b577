"""Four ways to run a layer with experts over nodes and their widths inside nodes, on streams of one GPU.

Tokens go to their expert's node (all-to-all), are gathered from the GPUs that share the expert's width, computed,
summed up over them, and come back. The stretch is cut into r parts, each transfer of which pays its start-up again.
Tutel has one stream of transfers and one r for both passes; gradients of what is not expert follow the backward pass.
Improved: they are reduced beside the dense backward pass. No-IIO: r of each pass for itself, and a part of the
gradients in the gaps of the experts' transfers. FSMoE: beside that, transfers inside and between nodes on streams of
their own, which then slow each other. Pan et al., "FSMoE" (arXiv 2501.10714); Shi et al., "PipeMoE" (2023) for Tutel's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from moesim.engine import GraphBuilder, Join, Speed, evaluate
from moesim.units import from_ps

NO_LINKS: Final = np.zeros(0)
DEGREES: Final = (1, 2, 3, 4, 6, 8)
TENTHS: Final = 10  # in which gradients are divided between the experts' gaps and the dense part
INTRA, INTER, COMPUTE = "intra_node", "inter_node", "compute"


class Phase(IntEnum):
    """Of a part, in order; gradients are of the layer before and wait for nothing."""

    DISPATCH = 0
    GATHER = 1
    EXPERTS = 2
    SCATTER = 3
    COMBINE = 4
    GRADIENTS = 5


Step = tuple[Phase, int]  # phase and part
LINKS: Final = {Phase.GATHER: INTRA, Phase.SCATTER: INTRA, Phase.EXPERTS: COMPUTE}  # others go between nodes


class Operations(NamedTuple):
    """Seconds of one pass of a layer; alltoall: there and back; dense: attention, router, order of tokens; gradients:
    all-reduce of the dense part's.
    """

    alltoall: float
    gather: float
    experts: float
    scatter: float
    dense: float
    gradients: float = 0.0

    def part(self, phase: Phase, starts: Operations, degree: int) -> float:
        """Seconds of one of `degree` parts: its start-up, and its share of the rest."""
        whole, start = (self._of(phase), starts._of(phase))
        return min(start, whole) + max(whole - start, 0.0) / degree

    def _of(self, phase: Phase) -> float:
        if phase in (Phase.DISPATCH, Phase.COMBINE):
            return self.alltoall / 2
        return (self.gather, self.experts, self.scatter)[phase - Phase.GATHER]


@dataclass(frozen=True)
class Policy:
    """apart: transfers inside nodes have a stream; adaptive: each pass has its own order and degree, and its share of
    gradients in the gaps; beside: gradients run beside the dense pass.
    """

    name: str
    apart: bool
    adaptive: bool
    beside: bool


POLICIES: Final = (
    Policy("Tutel", False, False, False), Policy("Tutel-Improved", False, False, True),
    Policy("FSMoE-No-IIO", False, True, True), Policy("FSMoE", True, True, True),
)  # fmt: skip


class Choice(NamedTuple):
    """How a pass is run: order of its steps, degree, seconds of gradients in the gaps."""

    order: Callable[[int], list[Step]]
    degree: int
    gradients: float


def layer_seconds(
    policy: Policy, passes: tuple[Operations, Operations], starts: Operations, interference: float
) -> float:
    """Forward and backward. starts: of each operation (alltoall of both ways, as there). interference: how much longer
    transfers inside and between nodes take while both run; the policy knows it. Chosen is what is shortest.
    """
    run = _Runs(policy, starts, interference)
    if policy.adaptive:
        return sum(min(run.whole(one, choice) for choice in _choices(one)) for one in passes)
    each = [Choice(by_phase, degree, 0.0) for degree in DEGREES]
    return min(sum(run.whole(one, choice) for one in passes) for choice in each)


@dataclass(frozen=True)
class _Runs:
    policy: Policy
    starts: Operations
    interference: float

    def whole(self, one: Operations, choice: Choice) -> float:
        """A pass: its experts, its dense part, and what is seen of gradients there."""
        left = one.gradients - choice.gradients
        seen = max(left - one.dense, 0.0) if self.policy.beside else left
        return self.experts(one, choice) + one.dense + seen

    def experts(self, one: Operations, choice: Choice) -> float:
        """The stretch from dispatch to combine on its streams."""
        steps = choice.order(choice.degree)
        seconds = {phase: one.part(phase, self.starts, choice.degree) for phase in {step[0] for step in steps}}
        if choice.gradients:
            gap = steps.index((Phase.DISPATCH, choice.degree - 1)) + 1
            steps = [*steps[:gap], (Phase.GRADIENTS, 0), *steps[gap:]]
            again = self.starts.gradients if choice.gradients < one.gradients else 0.0
            seconds[Phase.GRADIENTS] = choice.gradients + again
        return played(steps, seconds, self.policy.apart, self.interference)


def _choices(one: Operations) -> Iterator[Choice]:
    shares = range(TENTHS + 1) if one.gradients else (0,)
    for order in (by_phase, in_turns):
        for degree in DEGREES:
            yield from (Choice(order, degree, one.gradients * share / TENTHS) for share in shares)


def by_phase(degree: int) -> list[Step]:
    """All parts of a phase, then all of the next."""
    return [(phase, part) for phase in list(Phase)[: Phase.GRADIENTS] for part in range(degree)]


def in_turns(degree: int) -> list[Step]:
    """Each part gathered behind its dispatch, before the next is sent; each brought back as soon as it is summed up."""
    there = [(phase, part) for part in range(degree) for phase in (Phase.DISPATCH, Phase.GATHER)]
    computed = [(Phase.EXPERTS, part) for part in range(degree)]
    return [*there, *computed, *((phase, part) for part in range(degree) for phase in (Phase.SCATTER, Phase.COMBINE))]


def played(steps: list[Step], seconds: dict[Phase, float], apart: bool, interference: float) -> float:
    """Steps in the order of their streams -> seconds until the last one is done."""
    builder, number = GraphBuilder(), dict[Step, int]()
    for phase, part in steps:
        links = LINKS.get(phase, INTER)
        stream = links if apart or links == COMPUTE else INTER
        waits = Phase.DISPATCH < phase < Phase.GRADIENTS
        after = [(number[Phase(phase - 1), part], Join.LANE)] if waits else []
        number[phase, part] = builder.add(phase.name, links, stream, [0], seconds[phase], after=after)
    rate = 1.0 / interference
    line = evaluate(builder.build(), NO_LINKS, speed=Speed({(INTRA, (INTER,)): rate, (INTER, (INTRA,)): rate}))
    return float(from_ps(int(line.end.max())))
