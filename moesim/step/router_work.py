"""What a router's chores cost: the price of its decision, before the dispatch of a layer."""

from __future__ import annotations

from moesim.costs import CostModel
from moesim.routing.routers import Chores
from moesim.step.work import CostLog, Work


def router_work(chores: Chores, costs: CostModel, log: CostLog, expert_bytes: float) -> Work:
    """Seconds float64[ranks] of GEMMs (bf16, as gates are in every stack looked at), of kernels that move bytes, and of
    expert weights that are read or written, `expert_bytes` a set.
    """
    gemms = [costs.gemm(rows, n, k, "bf16") for rows, n, k in chores.gemms]
    moved = [costs.elementwise(each) for each in (*chores.moved, *(sets * expert_bytes for sets in chores.sets))]
    return log.work([*gemms, *moved])
