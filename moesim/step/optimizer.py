"""The end of a training step: gradients reduced, weights updated, parameters gathered again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.engine import Join
from moesim.layout import dense_parameters, expert_parameters
from moesim.network import Group, groups, rail_ring
from moesim.schedules import WHOLE, Node, Verb
from moesim.step.lowered import Lowering
from moesim.step.plan import StepPlan

PARAMETER_BYTES = 2  # bf16 parameters are gathered
NODE = Node(Verb.OPTIMIZER, -1, WHOLE)


def optimizer_step(plan: StepPlan, lowering: Lowering, islands: Sequence[list[int]]) -> None:
    """Reduce-scatter of dense and of expert gradients, the optimizer on each rank's shard, all-gather of parameters;
    the sums of gradients are set to zero again.

    Optimizer states are sharded over the ranks that hold the same weights (Megatron's distributed optimizer).
    `islands`: the last tasks of each expert-parallel group.
    """
    layout = plan.layout
    ranks = np.arange(layout.world, dtype=np.int32)
    group = Group(plan.fabric.cluster, ranks)
    dense = dense_parameters(plan.ops.spread) - plan.elsewhere + int(lowering.gates.sum())
    kinds = {
        "dense": (dense, layout.data_parallel, layout.tensor_parallel),
        "expert": (
            expert_parameters(plan.ops.spread, plan.placement),
            layout.expert_data_parallel,
            layout.island,
        ),
    }
    after = [(task, Join.GROUP) for tasks in islands for task in tasks]
    for op, width_bytes in (("reduce_scatter", plan.gradient_bytes), ("all_gather", PARAMETER_BYTES)):
        for kind, (parameters, width, stride) in kinds.items():
            if width > 1:
                shard = np.full(layout.world, -(-parameters * width_bytes // width), dtype=np.int64)
                collective = rail_ring(op, group, groups(layout.world, width, stride), shard)
                coflow = plan.fabric.collective(collective, group)
                task = lowering.transfer(f"{kind}_{op}", ranks, coflow, after, NODE)
                after = [(task, Join.LANE)]
        if op == "reduce_scatter":
            shard_sizes = sum(parameters / width for parameters, width, _ in kinds.values())
            moved = plan.optimizer.update_bytes(plan.gradient_bytes) * shard_sizes
            zeroed = plan.gradient_bytes * sum(parameters for parameters, _, _ in kinds.values())
            work = plan.ops.update(layout.world, moved + zeroed)
            after = [(lowering.compute("optimizer", ranks, work, after, NODE), Join.LANE)]
