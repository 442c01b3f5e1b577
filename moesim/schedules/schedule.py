"""What every schedule of a step says of itself, and the shape that most of them have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from moesim.errors import BadInput
from moesim.schedules.backward import add_backward
from moesim.schedules.nodes import Node, Part, Verb
from moesim.schedules.order import Order


class Schedule:
    """An order of nodes. A schedule is one file here: a class that names itself is registered.

    cuts: into how many parts it cuts a whole batch; shares_sms: whether transfers hold SMs while others compute, all
    through the layers; usual_degree: into how many parts it cuts a stretch of a layer, where no `degree` is asked for,
    0 where it cuts none; notes: what a result has to say of it. shared_beside: the shared expert runs beside the
    dispatch. Raises BadInput on a degree where there is none to choose.
    """

    name: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Schedule]]] = {}
    cuts: ClassVar[int] = 1
    shares_sms: ClassVar[bool] = False
    usual_degree: ClassVar[int] = 0
    notes: ClassVar[tuple[str, ...]] = ()
    carries: ClassVar[bool] = False  # experts of a layer are still under way when the next layer begins

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            cls.known[cls.name] = cls

    def __init__(self, *, shared_beside: bool = True, degree: int | None = None) -> None:
        if degree is not None and not self.usual_degree:
            raise BadInput(f"{self.name} has no degree to choose", where="overlap.degree", way_out="leave degree out")
        self.shared_beside = shared_beside
        self.degree = degree or self.usual_degree

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a batch that go through whole layers."""
        return tuple(Part(index, self.cuts) for index in range(self.cuts))

    @property
    def most_cuts(self) -> int:
        """The most parts that a batch is cut into anywhere."""
        return max(self.cuts, self.degree)

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
                add_backward(order, first, replay=replay)
        return tuple(order.nodes)

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
