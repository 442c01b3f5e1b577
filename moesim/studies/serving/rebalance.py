"""The `rebalance:` section of a serving scenario: experts that move while requests are served."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from moesim.errors import BadInput, placed
from moesim.placement import PlacementProblem, Windows
from moesim.placement.online import decide
from moesim.serving.rebalancing import Rebalance
from moesim.step import StepPlan
from moesim.studies.moving import MovingSection


class RebalanceSection(MovingSection):
    """vLLM's eplb_config, or SGLang's --eplb-*: all replicas look at the load of their own steps."""

    step_interval: int = Field(3000, ge=1, le=10**9, description="steps from one look to the next (vLLM)")
    window_size: int = Field(1000, ge=1, le=10**9, description="the latest of them, whose load counts (vLLM)")

    @model_validator(mode="after")
    def _fits(self) -> RebalanceSection:
        if self.window_size > self.step_interval:
            raise ValueError(f"window_size {self.window_size} is more than step_interval {self.step_interval}")
        return self

    def rule(self, plan: StepPlan, weights: int, seed: int) -> Rebalance:
        """Of a replica; weights: bytes of all experts of a rank. Raises BadInput where no expert can move, or the
        strategy needs more than loads.
        """
        model, layout, where = plan.model, plan.layout, "rebalance"
        if not model.routed or layout.expert_parallel == 1 or layout.expert_tensor_parallel > 1:
            what = (
                "no expert can move" if layout.expert_tensor_parallel == 1 else "each expert lies across several GPUs"
            )
            raise BadInput(what, where=where, way_out="expert_parallel_size of all GPUs, or leave it out")
        policy = self.policy(where, seed, redundant=plan.placement.num_slots > plan.placement.num_experts)
        even = np.ones((1, len(model.moe_layers), model.num_experts), dtype=np.int64)
        problem = PlacementProblem.on(
            plan.fabric.cluster, Windows("loads", even), ranks=layout.expert_parallel,
            redundant=plan.placement.num_slots - plan.placement.num_experts, groups=model.num_groups,
        )  # fmt: skip
        with placed(f"{where}.strategy"):
            decide(policy, problem, plan.placement, (even[0],))
        slots = int(np.bincount(plan.placement.slot_rank[0]).max()) * plan.placement.num_layers
        groups = layout.world // layout.expert_parallel
        return Rebalance(self.step_interval, self.window_size, policy, problem, weights // slots, groups)
