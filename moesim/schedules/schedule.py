"""What every schedule of a step says of itself, and the shape that most of them have."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import ClassVar, Self

from moesim.errors import BadInput
from moesim.schedules.backward import add_backward
from moesim.schedules.gradients import Fill, queued
from moesim.schedules.nodes import Node, Part, Verb
from moesim.schedules.order import Order


class Schedule:
    """An order of nodes. A schedule is one file here: a class that names itself is registered.

    cuts: into how many parts it cuts a whole batch; shares_sms: whether transfers hold SMs while others compute, all
    through the layers; usual_degree: into how many parts it cuts a stretch of a layer, where no `degree` is asked for,
    0 where it cuts none; notes: what a result has to say of it. shared_beside: the shared expert runs beside the
    dispatch. trains: it is an order of training steps alone. apart: transfers that stay inside nodes have a stream of
    their own. slices: into how many the gradients of a layer are cut that fill the gaps between transfers; 0: as gaps
    ask for it; None: gradients follow the last micro-batch. fills: what stands in the gaps.
    Raises BadInput on a degree where there is none to choose.
    """

    name: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Schedule]]] = {}
    cuts: ClassVar[int] = 1
    shares_sms: ClassVar[bool] = False
    usual_degree: ClassVar[int] = 0
    notes: ClassVar[tuple[str, ...]] = ()
    carries: ClassVar[bool] = False  # experts of a layer are still under way when the next layer begins
    trains: ClassVar[bool] = False
    apart: bool = False
    slices: ClassVar[int | None] = None

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            cls.known[cls.name] = cls

    def __init__(
        self, *, shared_beside: bool = True, degree: int | None = None, degree_backward: int | None = None
    ) -> None:  # fmt: skip
        for key, asked in (("degree", degree), ("degree_backward", degree_backward)):
            if asked is not None and not self.usual_degree:
                what = f"{self.name} has no {key} to choose"
                raise BadInput(what, where=f"overlap.{key}", way_out=f"leave {key} out")
        self.shared_beside = shared_beside
        self.degree = degree or self.usual_degree
        self.degree_backward = degree_backward or self.degree
        self.fills: tuple[Fill, ...] = ()

    def changed(self, **values: object) -> Self:
        """The same with other attributes."""
        found = copy(self)
        vars(found).update(values)
        return found

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a batch that go through whole layers."""
        return tuple(Part(index, self.cuts) for index in range(self.cuts))

    @property
    def most_cuts(self) -> int:
        """The most parts that a batch is cut into anywhere."""
        return max(self.cuts, self.degree, self.degree_backward)

    @property
    def overlaps(self) -> bool:
        """Whether one part computes while another's rows are on their way."""
        return self.most_cuts > 1

    def step(
        self, moe: Sequence[bool], micro_batches: int = 1, *, training: bool = False, replay: bool = False
    ) -> tuple[Node, ...]:  # fmt: skip
        """All nodes of a step. moe[layer]: it has routed experts. replay: the backward pass computes expert layers
        anew.

        Micro-batches follow each other, each forward and, in training, backward.
        """
        order = Order(self.parts)
        for number in range(micro_batches):
            order.micro_batch = number
            first = len(order.nodes)
            self.forward(order, moe)
            if training:
                add_backward(order, self._mirrored(order, first, moe), replay=replay)
        return queued(order.nodes, self.fills, len(moe))

    def _mirrored(self, order: Order, first: int, moe: Sequence[bool]) -> dict[int, Node]:
        """The forward nodes that the backward pass goes back over: those from `first` on, or, where that is cut
        otherwise, what they would be.
        """
        if self.degree_backward != self.degree:
            other = Order(self.parts)
            other.micro_batch, first = order.micro_batch, len(other.nodes)
            self.changed(degree=self.degree_backward).forward(other, moe)
            return dict(enumerate(other.nodes[first:], first))
        return dict(enumerate(order.nodes[first:], first))

    def forward(self, order: Order, moe: Sequence[bool]) -> None:
        """The embedding, all layers of a micro-batch, then the head."""
        for part in self.parts:
            order.then(Verb.EMBEDDING, -1, part)
        self.layers(order, moe)
        for part in self.parts:
            order.then(Verb.HEAD, -1, part)

    def layers(self, order: Order, moe: Sequence[bool]) -> None:
        """Part after part attends and sends; part after part computes and takes back.

        With several parts one computes while the rows of the others are on their way.
        """
        for layer, routed in enumerate(moe):
            for part in self.parts:
                order.then(Verb.ATTENTION, layer, part, shares_sms=self.shares_sms)
                if routed:
                    self.send(order, layer, part)
            for part in self.parts:
                if routed:
                    self.take_back(order, layer, part)
                else:
                    order.then(Verb.MLP, layer, part, shares_sms=self.shares_sms)

    def send(self, order: Order, layer: int, part: Part) -> None:
        """Decide, and send rows to experts."""
        order.then(Verb.ROUTER, layer, part, shares_sms=self.shares_sms)
        order.then(Verb.GATHER, layer, part)
        if not self.shared_beside:
            order.then(Verb.SHARED, layer, part, shares_sms=self.shares_sms)
        order.then(Verb.DISPATCH, layer, part, shares_sms=self.shares_sms)

    def take_back(self, order: Order, layer: int, part: Part) -> None:
        """The shared expert while rows are on their way, the experts, and the results back."""
        if self.shared_beside:
            order.beside(Verb.SHARED, layer, part, shares_sms=self.shares_sms)
        order.then(Verb.EXPERTS, layer, part, shares_sms=self.shares_sms)
        order.then(Verb.COMBINE, layer, part, shares_sms=self.shares_sms)
