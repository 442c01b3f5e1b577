"""Expert all-to-all algorithms: one file and one line in REGISTRY each."""

from __future__ import annotations

from moesim.errors import unknown_name
from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.all_to_all.deepep_low_latency import DeepEPLowLatency
from moesim.network.all_to_all.deepep_normal import DeepEPNormal
from moesim.network.all_to_all.pairwise import Pairwise

REGISTRY: dict[str, AllToAll] = {
    algorithm.name: algorithm for algorithm in (Pairwise(), DeepEPNormal(), DeepEPLowLatency())
}


def find(name: str, where: str = "") -> AllToAll:
    """The algorithm of that name. Raises BadInput with the known names."""
    if name not in REGISTRY:
        raise unknown_name("all-to-all algorithm", name, REGISTRY, where=where)
    return REGISTRY[name]


__all__ = ["REGISTRY", "AllToAll", "find"]
