"""Where things live: the rank grid and its groups, experts in slots, and what each device has to hold."""

from moesim.layout.activations import row_bytes_kept, shared_values, token_values
from moesim.layout.footprint import (
    Residency,
    Rows,
    dense_parameters,
    expert_parameters,
    held,
    serving_ledger,
    training_ledger,
)
from moesim.layout.layout import Layout, default_expert_tensor_parallel
from moesim.layout.memory import MemoryLedger, MemoryRow
from moesim.layout.optimizer import OPTIMIZERS, Optimizer
from moesim.layout.placement import EMPTY, Placement
from moesim.layout.shards import Shards
from moesim.layout.spread import UNQUANTISED, Part, Spread
from moesim.layout.states import HBM, Held, state_rows

__all__ = [
    "EMPTY",
    "HBM",
    "OPTIMIZERS",
    "UNQUANTISED",
    "Held",
    "Layout",
    "MemoryLedger",
    "MemoryRow",
    "Optimizer",
    "Part",
    "Placement",
    "Residency",
    "Rows",
    "Shards",
    "Spread",
    "default_expert_tensor_parallel",
    "dense_parameters",
    "expert_parameters",
    "held",
    "row_bytes_kept",
    "serving_ledger",
    "shared_values",
    "state_rows",
    "token_values",
    "training_ledger",
]
