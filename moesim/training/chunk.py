"""DeepSeek's order of a forward beside a backward pass: layer after layer, written down, not found out.

Source: DeepSeek-V3 report (2024), figure 4, and the kernels of its published training profile, which are in this order
in all four layers. Each transfer is queued where it stands; transfers and compute are streams of their own. What the
forward pass of a layer needs stands beside the backward pass of the layer that is as far from the loss as it has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from moesim.schedules import Node, Verb, Way
from moesim.schedules.pipelines import Pass
from moesim.step.lowered import Lowered

Step = tuple[Way, Verb]
CHUNK: Final[tuple[Step, ...]] = (
    (Way.BACKWARD_DATA, Verb.COMBINE), (Way.FORWARD, Verb.ATTENTION), (Way.FORWARD, Verb.ROUTER),
    (Way.FORWARD, Verb.DISPATCH), (Way.BACKWARD_DATA, Verb.EXPERTS), (Way.BACKWARD_DATA, Verb.SHARED),
    (Way.BACKWARD_DATA, Verb.MLP), (Way.BACKWARD_DATA, Verb.DISPATCH), (Way.BACKWARD_WEIGHT, Verb.EXPERTS),
    (Way.BACKWARD_WEIGHT, Verb.SHARED), (Way.BACKWARD_WEIGHT, Verb.MLP), (Way.FORWARD, Verb.SHARED),
    (Way.FORWARD, Verb.EXPERTS), (Way.FORWARD, Verb.MLP), (Way.FORWARD, Verb.COMBINE),
    (Way.BACKWARD_DATA, Verb.ROUTER), (Way.BACKWARD_DATA, Verb.ATTENTION), (Way.BACKWARD_WEIGHT, Verb.ATTENTION),
    (Way.BACKWARD_WEIGHT, Verb.ROUTER),
)  # fmt: skip
BEFORE: Final = ((Way.FORWARD, Verb.HOST), (Way.FORWARD, Verb.EMBEDDING), (Way.BACKWARD_DATA, Verb.HEAD),
                 (Way.BACKWARD_WEIGHT, Verb.HEAD))  # fmt: skip
BEHIND: Final = ((Way.FORWARD, Verb.HEAD), (Way.BACKWARD_DATA, Verb.EMBEDDING))


def written_order(
    passes: Sequence[tuple[Lowered, Pass]], tasks: Sequence[Sequence[int]]
) -> list[tuple[int, int]] | None:  # fmt: skip
    """tasks: of each pass, in its own order -> (pass, task) in the order above; None where a pass has what the order
    does not know, experts that are computed again among it.
    """
    placed = list[tuple[int, int, int, int]]()
    for act, ((lowered, what), own) in enumerate(zip(passes, tasks, strict=True)):
        layers = sorted({lowered.nodes[task].layer for task in own} - {-1}, reverse=what != Pass.F)
        for task in own:
            at = _place(lowered.nodes[task], layers)
            if at is None:
                return None
            placed.append((*at, act, task))
    return [(act, task) for _, _, act, task in sorted(placed)]


def _place(node: Node, layers: Sequence[int]) -> tuple[int, int] | None:
    """Which layer of its pass, the ends of the model before and behind them, and which step of that."""
    step = (node.way, node.verb)
    for ends, layer in ((BEFORE, -1), (BEHIND, len(layers))):
        if step in ends:
            return layer, ends.index(step)
    return (layers.index(node.layer), CHUNK.index(step)) if step in CHUNK and node.layer in layers else None
