"""Order: nodes of a schedule as they are added, and where each part of the batch stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moesim.schedules.nodes import COMM, COMPUTE, TRANSFERS, WHOLE, Node, Part, Verb, Way


class Order:
    """nodes in program order; ends: of each part, the nodes that its next one follows."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.nodes: list[Node] = [Node(Verb.HOST, -1, WHOLE)]
        self.ends: dict[Part, tuple[int, ...]] = dict.fromkeys(parts, (0,))
        self.micro_batch = 0

    def add(
        self, verb: Verb, layer: int, part: Part, after: Iterable[int], *, way: Way = Way.FORWARD,
        shares_sms: bool = False,
    ) -> int:  # fmt: skip
        """A node behind all others -> its number. Moves no end."""
        stream = COMM if verb in TRANSFERS else COMPUTE
        follows = tuple(dict.fromkeys(after))
        self.nodes.append(Node(verb, layer, part, follows, way, self.micro_batch, stream, shares_sms))
        return len(self.nodes) - 1

    def then(self, verb: Verb, layer: int, part: Part, *, shares_sms: bool = False) -> int:
        """A node that follows what its part stands at; the part then stands at it."""
        node = self.add(verb, layer, part, self.ends[part], shares_sms=shares_sms)
        self.ends[part] = (node,)
        return node

    def beside(self, verb: Verb, layer: int, part: Part, *, shares_sms: bool = False) -> int:
        """A node that follows what the part's last one follows, and runs beside it; the part then stands at both."""
        last = self.ends[part]
        node = self.add(verb, layer, part, self.nodes[last[-1]].after, shares_sms=shares_sms)
        self.ends[part] = (*last, node)
        return node
