"""What a kind of fabric says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.hardware.blueprint import Ints, Link
from moesim.hardware.schema import FabricSection

Tickets = npt.NDArray[np.uint64]


class Wiring(NamedTuple):
    """links between switches; hops(a, b, ticket) the ones from switch a to switch b in order, int32 each of the shape
    of a and b, numbers of `links`, -1 where a hop is not taken. ticket: a hash of the two ports and the queue pair, by
    which equal ways are told apart.
    """

    links: Sequence[Link]
    hops: Callable[[Ints, Ints, Tickets], list[Ints]]


@dataclass(frozen=True)
class Ground:
    """A fabric that is to be built. leaf_of int32[P]: each port's switch; rate: B/s of a port; where: for errors."""

    fabric: FabricSection
    leaf_of: Ints
    rate: float
    where: str = ""

    @property
    def leaves(self) -> int:
        """Switches with ports below them."""
        return int(self.leaf_of.max()) + 1

    @cached_property
    def below(self) -> npt.NDArray[np.float64]:
        """float64[leaves] B/s: all ports of a switch together."""
        return np.bincount(self.leaf_of).astype(np.float64) * self.rate

    def link(self, name: str, kind: str, start: str, end: str, rate: float) -> Link:
        """A link of the fabric; `latency` is that of two of them, up and down."""
        return Link(name, kind, start, end, float(rate), self.fabric.latency / 2, self.fabric.source)


class Kind(NamedTuple):
    """seat(port int32[P], ports of a node, fabric) -> the switch of each port; wire(ground) -> Wiring.

    keys: of the fabric section that act. pooled: uplinks of a switch act as one, so that flows meet at ports only.
    relays: a GPU of the sender's node, on the receiver's rail, passes on what the fabric does not carry across rails.
    """

    seat: Callable[[Ints, int, FabricSection], Ints]
    wire: Callable[[Ground], Wiring]
    keys: frozenset[str]
    pooled: Callable[[FabricSection], bool]
    relays: bool = False


def plane(ticket: Tickets, planes: int) -> Ints:
    """int32: which of so many equal ways a ticket takes."""
    return (ticket % np.uint64(planes)).astype(np.int32)


def tickets(a: Ints, b: Ints, queue_pair: int) -> Tickets:
    """uint64 of the shape of ports a and b."""
    return streams.hash_ints(streams.key("ecmp"), a, b, queue_pair)


def by_node(port: Ints, ports: int, fabric: FabricSection) -> Ints:
    """A switch for every `nodes_per_leaf` nodes."""
    return port // ports // fabric.nodes_per_leaf


def by_rail(port: Ints, ports: int, fabric: FabricSection) -> Ints:
    """A switch for port r of every node."""
    return port % ports
