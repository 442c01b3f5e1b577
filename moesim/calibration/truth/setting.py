"""What the truth loop runs: one layer, the routings that costs are fitted on, and those that are held out."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.routed import Routed, route


@dataclass(frozen=True)
class Routing:
    """A layer of the recorded trace and how many of its tokens each rank sends."""

    layer: int
    tokens: int


@dataclass(frozen=True)
class Setting:
    """Sizes of the layer; other layers of the trace and another number of tokens are held out. rounds: samples of each
    pass and stage, taken in turn and in random order; split-half compares the odd with the even ones.
    """

    hidden: int = 256
    inter: int = 512
    experts: int = 32
    top_k: int = 4
    world: int = 2
    trace: str = "trace:tiny-moe"
    rounds: int = 60
    warm_rounds: int = 2
    seed: int = 0
    fitted: tuple[Routing, ...] = tuple(Routing(layer, tokens) for layer in (0, 2, 4, 6) for tokens in (48, 160))
    held_out: tuple[Routing, ...] = tuple(Routing(layer, 128) for layer in (1, 3, 5, 7))

    def route(self, routing: Routing) -> Routed:
        """Who goes where."""
        return route(
            self.trace, self.experts, self.top_k, self.world, routing.tokens, layer=routing.layer, seed=self.seed
        )

    def case(self, routing: Routing) -> Case:
        """The layer as records see it."""
        routed = self.route(routing)
        columns = shape(
            tokens=routing.tokens * self.world, hidden=self.hidden, inter=self.inter, topk=self.top_k,
            experts=self.experts, matrices=3, ep=self.world, tp=1,
        )  # fmt: skip
        return Case("moe_layer", "moe_layer", "fp32", columns, self.trace, routed.group_sizes, routed.split_matrix)
