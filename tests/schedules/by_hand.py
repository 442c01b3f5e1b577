"""A clock for schedules by themselves: every verb takes a whole number of ticks, streams run first in, first out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moesim.schedules import Node, Verb, Way

TICKS = {Verb.HOST: 0, Verb.ATTENTION: 4, Verb.ATTENTION_PREPARE: 1, Verb.ATTENTION_CORE: 3, Verb.ROUTER: 0,
         Verb.GATHER: 0, Verb.DISPATCH: 3, Verb.SHARED: 1, Verb.EXPERTS: 4, Verb.COMBINE: 3, Verb.MLP: 5,
         Verb.HEAD: 0, Verb.EMBEDDING: 0}  # fmt: skip


def ends(nodes: Sequence[Node], ticks: Mapping[Verb, int] = TICKS) -> list[int]:
    """When each node ends, on one rank; a part takes its share of the ticks, which have to divide."""
    free: dict[str, int] = {}
    done: list[int] = []
    for node in nodes:
        begin = max([free.get(node.stream, 0), *(done[earlier] for earlier in node.after)])
        whole, rest = divmod(ticks[node.verb], node.part.of)
        assert not rest
        done.append(begin + whole)
        free[node.stream] = done[-1]
    return done


def last(nodes: Sequence[Node], ticks: Mapping[Verb, int] = TICKS) -> int:
    """The end of the step."""
    return max(ends(nodes, ticks))


def compute(nodes: Sequence[Node]) -> list[str]:
    """The compute stream in words: "experts 1 b", layer and part."""
    return [
        f"{node.verb.name.lower()} {node.layer} {'abcdefgh'[node.part.number]}"
        for node in nodes
        if node.stream == "compute" and node.layer >= 0 and node.way == Way.FORWARD
        and node.verb not in (Verb.ROUTER, Verb.GATHER)
    ]  # fmt: skip
