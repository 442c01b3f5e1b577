"""Gradients that are reduced in the gaps between other transfers: where they stand in a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from moesim.schedules.nodes import COMM, WHOLE, Node, Verb, Way

GRADIENTS = (Way.BACKWARD, Way.BACKWARD_DATA, Way.BACKWARD_WEIGHT)


class Fill(NamedTuple):
    """`share` of the gradients of a layer (or of the output head, which counts as the layer behind the last one),
    queued right behind node `behind` of the step without any.
    """

    behind: int
    layer: int
    share: float


def makers_of(nodes: Sequence[Node], layer: int, head: int) -> tuple[int, ...]:
    """Numbers of the last micro-batch's backward nodes that write a layer's gradients; head: the head's layer."""
    last = nodes[-1].micro_batch
    return tuple(
        number for number, node in enumerate(nodes)
        if node.way in GRADIENTS and node.micro_batch == last
        and (node.verb == Verb.HEAD if layer == head else node.layer == layer)
    )  # fmt: skip


def queued(nodes: Sequence[Node], fills: Iterable[Fill], head: int) -> tuple[Node, ...]:
    """The nodes with those of the gradients among them."""
    waiting: dict[int, list[Fill]] = {}
    for fill in fills:
        waiting.setdefault(fill.behind, []).append(fill)
    made: list[Node] = []
    place: dict[int, int] = {}
    for number, node in enumerate(nodes):
        place[number] = len(made)
        made.append(node._replace(after=tuple(place[one] for one in node.after)))
        for fill in waiting.get(number, ()):
            after = tuple(place[one] for one in makers_of(nodes, fill.layer, head))
            made.append(Node(Verb.GRADIENTS, fill.layer, WHOLE, after, Way.BACKWARD, node.micro_batch, COMM, False,
                             fill.share))  # fmt: skip
    return tuple(made)
