"""Stages: which layers stand where, and the model of one stage alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from moesim.errors import BadInput
from moesim.models import MoEModel
from moesim.schedules import Node, Order, Verb, Way
from moesim.schedules.sequential import Sequential

WEIGHTED: Final = (Verb.ATTENTION, Verb.ROUTER, Verb.SHARED, Verb.EXPERTS, Verb.MLP, Verb.HEAD)


@dataclass(frozen=True)
class Stage:
    """Layers `first` to `last` - 1 of a model; of the ends of the model the first stage has the embedding, the last the
    head. `number` of `of`.
    """

    number: int
    of: int
    first: int
    last: int

    @property
    def begins(self) -> bool:
        """It looks tokens up."""
        return self.number == 0

    @property
    def ends(self) -> bool:
        """It has the output embedding and the loss."""
        return self.number == self.of - 1

    def tables(self, tied: bool) -> int:
        """Of the vocabulary, those that its ranks hold: tied ones are one where both ends are here."""
        return min(self.begins + self.ends, 1) if tied else self.begins + self.ends

    def alone(self) -> Iterator[Stage]:
        """Each layer as a stage; of the ends of the model the first has what this begins with, the last the other."""
        for layer in range(self.first, self.last):
            begins, ends = self.begins and layer == self.first, self.ends and layer == self.last - 1
            number, of = (0, 1 if ends else 2) if begins else (1, 2 if ends else 3)
            yield Stage(number, of, layer, layer + 1)

    def model(self, whole: MoEModel) -> MoEModel:
        """Its layers as a model."""
        here = range(self.first, self.last)
        moe = tuple(layer - self.first for layer in whole.moe_layers if layer in here)
        others = tuple(
            (mixer, tuple(layer - self.first for layer in layers if layer in here)) for mixer, layers in whole.others
        )
        bare = tuple(layer - self.first for layer in whole.bare_layers if layer in here)
        return replace(whole, num_layers=len(here), moe_layers=moe, others=others, bare_layers=bare)


class StageSchedule(Sequential):
    """The layers of a stage, with the ends of the model that it has."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, order: Order, moe: Sequence[bool]) -> None:
        """Embedding, layers, head."""
        for part in self.parts:
            if self.stage.begins:
                order.then(Verb.EMBEDDING, -1, part)
        self.layers(order, moe)
        for part in self.parts:
            if self.stage.ends:
                order.then(Verb.HEAD, -1, part)


class SplitSchedule(StageSchedule):
    """The same, gradients of weights after all those of inputs."""

    def step(
        self, moe: Sequence[bool], micro_batches: int = 1, *, training: bool = False, replay: bool = False
    ) -> tuple[Node, ...]:  # fmt: skip
        """Of one micro-batch."""
        whole = super().step(moe, micro_batches, training=training, replay=replay)
        data = [node._replace(way=Way.BACKWARD_DATA) if node.way == Way.BACKWARD else node for node in whole]
        weights = [
            node._replace(way=Way.BACKWARD_WEIGHT, after=(number,))
            for number, node in enumerate(whole) if node.way == Way.BACKWARD and node.verb in WEIGHTED
        ]  # fmt: skip
        return (*data, *weights)


def even_stages(layers: int, stages: int) -> tuple[Stage, ...]:
    """As many layers in each. Raises BadInput where they do not divide, with the nearest numbers that do."""
    size, rest = divmod(layers, stages)
    if rest or not size:
        can = [number for number in range(1, layers + 1) if layers % number == 0]
        near = sorted(sorted(can, key=lambda number: abs(number - stages))[:2])
        what = f"{layers} layers do not divide over {stages} pipeline stages"
        raise BadInput(what, way_out=f"{' or '.join(map(str, near))} stages")
    return tuple(Stage(number, stages, number * size, (number + 1) * size) for number in range(stages))


def listed_stages(layers: int, stages: int, listed: Sequence[int]) -> tuple[Stage, ...]:
    """As many layers in each as `listed`. Raises BadInput where they are not as many stages or layers."""
    if len(listed) != stages or sum(listed) != layers or min(listed) < 1:
        what = f"{len(listed)} stages with {sum(listed)} layers, where {stages} stages with {layers} layers are needed"
        raise BadInput(what, way_out=f"{stages} numbers of 1 or more that add up to {layers}")
    first = [sum(listed[:number]) for number in range(stages)]
    return tuple(Stage(number, stages, first[number], first[number] + listed[number]) for number in range(stages))
