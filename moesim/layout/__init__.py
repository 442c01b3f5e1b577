"""Where things live: the rank grid and its groups, experts in slots, and what each device has to hold."""

from moesim.layout.footprint import (
    HBM,
    Residency,
    dense_parameters,
    expert_parameters,
    serving_ledger,
    training_ledger,
)
from moesim.layout.layout import Layout, default_expert_tensor_parallel
from moesim.layout.memory import MemoryLedger, MemoryRow
from moesim.layout.placement import Placement
from moesim.layout.spread import UNQUANTISED, Part, Spread

__all__ = [
    "HBM",
    "UNQUANTISED",
    "Layout",
    "MemoryLedger",
    "MemoryRow",
    "Part",
    "Placement",
    "Residency",
    "Spread",
    "default_expert_tensor_parallel",
    "dense_parameters",
    "expert_parameters",
    "serving_ledger",
    "training_ledger",
]
