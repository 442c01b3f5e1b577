"""All-gather of every token to every rank, then reduce-scatter of the results: what engines do without an all-to-all.

The bytes do not depend on routing: every device gets every row once. Rings run along the rails and, inside nodes, over
NVLink, pipelined on SMs: a NIC passes on its rail's rows once per remote node, NVLink all rows but the receiver's own;
the way back is the same rings backwards with partial sums. A lane has one message for the next lane of each of its
rings. Source: vLLM's default `allgather_reducescatter` all-to-all backend; NCCL's multi-ring all-gather moves the same
bytes per port.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.all_to_all.hops import lands_at
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class AllGatherReduceScatter(AllToAll):
    """Every row to every rank: rings along rails, then inside nodes."""

    name = "allgather_reducescatter"
    deduplicates = "device"
    phases = 2
    gathers = True
    reads = ("tokens",)

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """To each ring's next lane, with all that passes there."""
        size, lanes = copies.tokens, len(group.devices)
        rail = np.zeros_like(size)  # what a lane holds after its rail's ring
        homes = np.unique(group.node_of_lane)
        partner = {int(node): group.lane_of[group.rail_peer[:, node]] for node in homes}
        if len(homes) > 1:
            lands_at(group)
        for node in homes:
            rail += size[..., partner[int(node)]]
        along = np.zeros((*size.shape, lanes), dtype=np.int64)
        _ring(along, [list(lanes) for lanes in _rails(group)], size)
        _ring(along, [list(np.flatnonzero(group.node_of_lane == node)) for node in homes], rail)
        return (along,)


def _rails(group: Group) -> list[npt.NDArray[np.int64]]:
    """The lanes of each rail, in order of nodes."""
    rails = group.cluster.rail_of[group.devices]
    return [np.flatnonzero(rails == rail) for rail in np.unique(rails)]


def _ring(matrix: Matrix, rings: list[list[int]], size: Matrix) -> None:
    """matrix int64[..., R, R], size int64[..., R]: every lane hands on all but what the next in its ring began with."""
    for ring in rings:
        total = size[..., ring].sum(axis=-1)
        for place, lane in enumerate(ring):
            following = ring[(place + 1) % len(ring)]
            matrix[..., lane, following] += total - size[..., following]
