"""What changes between two placements."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.layout import Placement


def held(placement: Placement) -> npt.NDArray[np.int64]:
    """int64[layers, ranks, experts]: slots of each rank that hold each expert."""
    layers, ranks, experts = placement.num_layers, placement.num_ranks, placement.num_experts
    cell = (np.arange(layers)[:, None] * ranks + placement.slot_rank) * experts + placement.slot_expert
    return np.bincount(cell[placement.filled], minlength=layers * ranks * experts).reshape(layers, ranks, experts)


def count_moves(before: Placement, after: Placement) -> int:
    """Slots of `after` whose expert the same rank did not hold before: their weights come from another rank."""
    new = (held(after) > 0) & (held(before) == 0)
    return int(new.sum())
