"""Placement strategies: one file and one line in _ALL each."""

from __future__ import annotations

from moesim.errors import pick
from moesim.placement.strategies.affinity_bcd import AffinityBcd
from moesim.placement.strategies.affinity_hungarian import AffinityHungarian
from moesim.placement.strategies.alias_weighted import AliasWeighted
from moesim.placement.strategies.co_activation import CoActivation
from moesim.placement.strategies.contiguous import Contiguous
from moesim.placement.strategies.eplb import Eplb, EplbHierarchical
from moesim.placement.strategies.exact_chain_dp import ExactChainDp
from moesim.placement.strategies.exhaustive import Exhaustive
from moesim.placement.strategies.flash import Flash
from moesim.placement.strategies.greedy import Greedy
from moesim.placement.strategies.ilp import Ilp
from moesim.placement.strategies.ilp_polish import IlpPolish
from moesim.placement.strategies.incremental import Incremental
from moesim.placement.strategies.lpt import Lpt
from moesim.placement.strategies.moetuner import MoETuner
from moesim.placement.strategies.multiwindow import MultiWindow
from moesim.placement.strategies.round_robin import RoundRobin
from moesim.placement.strategies.shuffled import Random
from moesim.placement.strategies.step_time import FastestStep
from moesim.placement.strategies.strategy import Strategy
from moesim.placement.strategies.top_everywhere import TopEverywhere
from moesim.placement.strategies.two_resources import TwoResources

_ALL: tuple[Strategy, ...] = (
    Contiguous(),
    RoundRobin(),
    Random(),
    Greedy(),
    CoActivation(),
    AffinityHungarian(),
    AffinityBcd(),
    ExactChainDp(),
    MoETuner(),
    Ilp(),
    IlpPolish(),
    Lpt(),
    Eplb(),
    EplbHierarchical(),
    AliasWeighted(),
    MultiWindow(),
    Flash(),
    Incremental(),
    TopEverywhere(),
    Exhaustive(),
    TwoResources((Eplb(), EplbHierarchical(), MultiWindow(), CoActivation(), CoActivation(1.15))),
    FastestStep((Eplb(), EplbHierarchical(), MultiWindow(), CoActivation())),
)
REGISTRY: dict[str, Strategy] = {strategy.name: strategy for strategy in _ALL}


def find(name: str, where: str = "") -> Strategy:
    """The strategy of that name. Raises BadInput with the known names."""
    return pick("placement strategy", name, REGISTRY, where=where)


__all__ = ["REGISTRY", "Strategy", "find"]
