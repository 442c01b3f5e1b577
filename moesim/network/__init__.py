"""Network: byte matrices and flows between devices -> time. It knows devices and lanes, no experts and no tokens."""

from moesim.network.all_to_all import AllToAll
from moesim.network.copies import Copies, count_copies
from moesim.network.fabric import Fabric
from moesim.network.flows import Coflow, Flows, Group
from moesim.network.rings import ring_all_reduce, ring_pass, ring_seconds

__all__ = [
    "AllToAll",
    "Coflow",
    "Copies",
    "Fabric",
    "Flows",
    "Group",
    "count_copies",
    "ring_all_reduce",
    "ring_pass",
    "ring_seconds",
]
