"""Expert all-to-all algorithms: one file and one line in _ALL each."""

from __future__ import annotations

from moesim.errors import pick
from moesim.network.all_to_all.algorithm import AllToAll, Stages
from moesim.network.all_to_all.allgather_reducescatter import AllGatherReduceScatter
from moesim.network.all_to_all.bilevel import BiLevel
from moesim.network.all_to_all.deepep_low_latency import DeepEPLowLatency
from moesim.network.all_to_all.deepep_normal import DeepEPNormal
from moesim.network.all_to_all.exflow import ExFlow
from moesim.network.all_to_all.hierarchical_2d import Hierarchical2D
from moesim.network.all_to_all.nvlink_domain import NVLinkDomain
from moesim.network.all_to_all.pairwise import Pairwise
from moesim.network.all_to_all.pxn import Pxn
from moesim.network.all_to_all.replicated import Replicated

_ALL: tuple[AllToAll, ...] = (
    Pairwise(),
    Pxn(),
    DeepEPNormal(),
    DeepEPLowLatency(),
    Hierarchical2D(),
    BiLevel(),
    NVLinkDomain(),
    AllGatherReduceScatter(),
    ExFlow(),
    Replicated(),
)
REGISTRY: dict[str, AllToAll] = {algorithm.name: algorithm for algorithm in _ALL}


def find(name: str, where: str = "") -> AllToAll:
    """The algorithm of that name, as its newest version does it. Raises BadInput with the known names."""
    return pick("all-to-all algorithm", name, REGISTRY, where=where)


__all__ = ["REGISTRY", "AllToAll", "Stages", "find"]
