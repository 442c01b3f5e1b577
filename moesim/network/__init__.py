"""Network: byte matrices and flows between devices -> time. It knows devices and lanes, no experts and no tokens."""

from moesim.network.all_to_all import AllToAll
from moesim.network.collectives import Collective, all_gather, all_reduce, groups, reduce_scatter
from moesim.network.copies import Copies, count_copies
from moesim.network.fabric import Fabric
from moesim.network.flows import Coflow, Flows, Group

__all__ = [
    "AllToAll",
    "Coflow",
    "Collective",
    "Copies",
    "Fabric",
    "Flows",
    "Group",
    "all_gather",
    "all_reduce",
    "count_copies",
    "groups",
    "reduce_scatter",
]
