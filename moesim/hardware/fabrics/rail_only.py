"""A leaf per rail and nothing above: what goes to another rail is passed on by the GPU of its own node on that rail.

Source: Wang, Ghobadi, Shakeri, Zhang, Hasani: Rail-only: a low-cost high-performance network for training LLMs with
trillion parameters, 2023.
"""

from __future__ import annotations

from moesim.hardware.blueprint import Ints
from moesim.hardware.fabrics.kind import Ground, Kind, Tickets, Wiring, by_rail


def wire(ground: Ground) -> Wiring:
    """Both ports of a way hang on the same leaf."""

    def hops(a: Ints, b: Ints, ticket: Tickets) -> list[Ints]:
        return []

    return Wiring([], hops)


KIND = Kind(by_rail, wire, frozenset(), lambda fabric: True, relays=True)
