"""The backward pass of nodes: last to first, each after the backward of what followed it."""

from __future__ import annotations

from collections.abc import Iterable

from moesim.schedules.nodes import Node, Verb, Way
from moesim.schedules.order import Order

REPLAYED = (Verb.GATHER, Verb.DISPATCH, Verb.SHARED, Verb.EXPERTS, Verb.COMBINE)


def add_backward(order: Order, forward: dict[int, Node], *, replay: bool = False) -> None:
    """Into `order` the backward nodes of forward ones, by number; parts then stand at the last of these.

    A dispatch's gradients also wait for the shared expert's: frameworks queue a layer's backward in the reverse of the
    order in which they queued its forward, and a transfer waits for the kernels that were queued before it.
    """
    first = min(forward)
    done: dict[int, int] = {}
    replayed: dict[int, int] = {}
    followers = _followers(forward)
    for number, node in reversed(forward.items()):
        after = [done[one] for one in followers[number]] or [*order.ends[node.part]]
        if node.verb == Verb.COMBINE and replay:
            after = [*after, *_replay(order, forward, replayed, node, after)]
        if node.verb == Verb.DISPATCH:
            after += [done[one] for one in _of_layer(forward, node, (Verb.SHARED,)) if one in done]
        done[number] = order.add(
            node.verb, node.layer, node.part, after, way=Way.BACKWARD, shares_sms=node.shares_sms
        )  # fmt: skip
    for part in order.ends:
        begun = [one for one, node in forward.items() if node.part == part and not _inside(node.after, first)]
        order.ends[part] = tuple(done[one] for one in begun)


def _followers(forward: dict[int, Node]) -> dict[int, list[int]]:
    """Node -> the forward nodes that follow it."""
    found: dict[int, list[int]] = {number: [] for number in forward}
    for number, node in forward.items():
        for earlier in node.after:
            if earlier in found:
                found[earlier].append(number)
    return found


def _replay(
    order: Order, forward: dict[int, Node], replayed: dict[int, int], combine: Node, after: list[int]
) -> list[int]:  # fmt: skip
    """The expert layer forward once more, as far as `combine` needs it -> its last node."""
    last: list[int] = []
    for number in _of_layer(forward, combine, REPLAYED):
        node = forward[number]
        if number not in replayed:
            follows = [replayed[one] for one in node.after if one in replayed] or after
            replayed[number] = order.add(
                node.verb, node.layer, node.part, follows, way=Way.REPLAY, shares_sms=node.shares_sms
            )  # fmt: skip
            last = [replayed[number]] if node.verb == Verb.COMBINE else last
    return last


def _of_layer(forward: dict[int, Node], node: Node, verbs: tuple[Verb, ...]) -> list[int]:
    """Nodes of a node's layer that have tokens of its part."""
    return [
        number for number, one in forward.items()
        if one.layer == node.layer and one.verb in verbs and one.part.overlaps(node.part)
    ]  # fmt: skip


def _inside(after: Iterable[int], first: int) -> bool:
    return any(number >= first for number in after)
