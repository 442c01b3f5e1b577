"""NCCL with PXN: rows for another rail first cross NVLink to the local GPU on that rail, and leave together from there.

No row crosses between rails outside its node, nothing is merged, and a NIC sends one message per destination for the
whole node; hops are pipelined, copying takes SMs. Source: NVIDIA technical blog, "Doubling all2all Performance with
NCCL 2.12" (2022).
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.all_to_all.hops import gathered
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class Pxn(AllToAll):
    """NVLink to the rail of the destination, then that rail, pipelined; nothing merged."""

    name = "pxn"
    phases = 2

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Both hops run together; same-node rows only take the first."""
        home = group.node_of_lane[:, None] == group.node_of_lane[None, :]
        inside, along = gathered(group, copies.pairs * ~home)
        return (inside + copies.pairs * home + along,)
