"""Rules under which a replica's share follows from where replicas stand. Tokens start evenly on all ranks.

nearest: own rank, own node, anywhere; equals share evenly. sglang: own rank, else the *first* replica of the own node
by the order of slots, else any, evenly over ranks: the table that its static dispatch makes once (sgl-project/sglang,
srt/eplb/expert_location.py). vllm-ascend: rank r takes replica r modulo their number (vllm-project/vllm-ascend,
`generate_log2phy_map`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moesim.layout import Placement
from moesim.placement.dispatch.rule import Floats
from moesim.placement.dispatch.ways import slot_shares

if TYPE_CHECKING:
    from moesim.placement.problem import PlacementProblem
    from moesim.placement.windows import Windows


@dataclass(frozen=True)
class ByPlace:
    """One of the ways of `ways.py`, under the name that users know."""

    name: str
    summary: str
    way: int

    def shares(self, problem: PlacementProblem, placement: Placement, windows: Windows) -> Floats:
        """float64[1, layers, slots]."""
        layers = zip(placement.slot_expert, placement.slot_rank, strict=True)
        node, experts = problem.node_of_rank, placement.num_experts
        return np.stack(
            [slot_shares(row.astype(np.int64), rank.astype(np.int64), node, experts, self.way) for row, rank in layers]
        )[None]
