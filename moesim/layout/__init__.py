"""Where things live: the rank grid and its groups, experts in slots, and what each device has to hold."""

from moesim.layout.footprint import (
    HBM,
    Residency,
    dense_parameters,
    expert_parameters,
    serving_ledger,
    training_ledger,
)
from moesim.layout.layout import Layout
from moesim.layout.memory import MemoryLedger, MemoryRow
from moesim.layout.placement import Placement

__all__ = [
    "HBM",
    "Layout",
    "MemoryLedger",
    "MemoryRow",
    "Placement",
    "Residency",
    "dense_parameters",
    "expert_parameters",
    "serving_ledger",
    "training_ledger",
]
