"""Network: byte matrices and flows between devices -> time. It knows devices and lanes, no experts and no tokens."""

from moesim.network.all_to_all import AllToAll
from moesim.network.collectives import Collective, groups
from moesim.network.copies import Copies, count_copies
from moesim.network.fabric import Fabric
from moesim.network.flows import Coflow, Flows, Group
from moesim.network.rails import ENGINES, algorithms, of_engine, rail_ring

__all__ = [
    "ENGINES",
    "AllToAll",
    "Coflow",
    "Collective",
    "Copies",
    "Fabric",
    "Flows",
    "Group",
    "algorithms",
    "count_copies",
    "groups",
    "of_engine",
    "rail_ring",
]
