"""`lower`: a batch on a plan becomes a TaskGraph. Pure: no clock, no random draw; routing is looked up layer by layer.

The schedule says which nodes there are, a table of makers what tasks a node becomes. Sites, the groups of ranks that
hold all experts together, do not talk to each other inside a layer, so each is lowered by itself; what spans sites
(gradients, parameters) comes after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.sources import Routed
from moesim.schedules import Node
from moesim.step.batch import Batch
from moesim.step.chain import Chain, Edge
from moesim.step.lowered import Lowered, Lowering
from moesim.step.makers import MAKERS
from moesim.step.optimizer import optimizer_step
from moesim.step.plan import StepPlan
from moesim.step.site import Site


def lower(plan: StepPlan, batches: Sequence[Batch]) -> Lowered:
    """One step: a single decode or prefill batch, or the micro-batches of a training step. Raises BadInput.

    Every batch covers all ranks of the layout; a training step ends with the reduction of gradients and the optimizer.
    Where GPUs are of several kinds every rank takes as long as its own.
    """
    check(plan, batches)
    found = _lowered(plan, batches)
    for number, ops in enumerate(plan.others, 1):
        found = found.with_some_of(_lowered(replace(plan, ops=ops), batches), plan.kinds == number)
    return found


def _lowered(plan: StepPlan, batches: Sequence[Batch]) -> Lowered:
    layers, experts = len(plan.model.moe_layers), plan.placement.num_experts
    lowering = Lowering.of(layers, experts, plan.layout.world, plan.schedule.most_cuts)
    nodes = plan.nodes(len(batches), batches[0].training)
    last = [_lower_site(plan, lowering, ranks, nodes, batches) for ranks in plan.layout.islands()]
    if batches[0].training:
        optimizer_step(plan, lowering, last)
    return lowering.finish()


def _lower_site(
    plan: StepPlan, lowering: Lowering, ranks: npt.NDArray[np.int32], nodes: Sequence[Node], batches: Sequence[Batch]
) -> list[int]:
    """Node after node -> the tasks that nothing follows."""
    site = Site(plan, lowering, ranks, tuple(batches))
    tails: list[list[Edge]] = []
    for node in nodes:
        chain = Chain(site, node, _joined(tails, node))
        _made(chain)
        tails.append(chain.ready)
    followed = {earlier for node in nodes for earlier in node.after}
    return [task for number in range(len(nodes)) if number not in followed for task, _ in tails[number]]


def _joined(tails: Sequence[Sequence[Edge]], node: Node) -> list[Edge]:
    """The tails of all that a node follows, each once."""
    return list(dict.fromkeys(edge for earlier in node.after for edge in tails[earlier]))


def _made(chain: Chain) -> None:
    node = chain.node
    if (node.verb, node.way) not in MAKERS:
        what = f"{node.verb.name.lower()} has no {node.way.name.lower().replace('_', ' ')} node"
        raise BadInput(what, where=f"schedule {chain.plan.schedule.name}")
    MAKERS[node.verb, node.way](chain)


def check(plan: StepPlan, batches: Sequence[Batch]) -> None:
    """Refuse what the nouns allow but no engine runs. Raises BadInput."""
    algorithm = plan.dispatch.algorithm
    if algorithm.travels and batches[0].training:
        raise BadInput(f"{algorithm.name} is for inference, not for training", way_out="dispatch: nccl")
    if algorithm.travels and plan.schedule.carries:
        raise BadInput(
            f"with {algorithm.name} tokens are where experts were; {plan.schedule.name} begins the next layer before",
            where="overlap.schedule", way_out="schedule: sequential, or comm.dispatch: nccl",
        )  # fmt: skip
    _check_parts(plan, batches)
    _check_decided(plan)


def _check_decided(plan: StepPlan) -> None:
    """Routing is asked for part by part, which a router that looks at a whole batch would not answer alike."""
    routing, cut = plan.routing, plan.schedule.most_cuts > plan.schedule.cuts
    if cut and isinstance(routing, Routed) and routing.router.facts.batch_dependent:
        raise BadInput(
            f"{plan.schedule.name} cuts a batch after its routing, and {routing.router_name} would decide part by part",
            where="overlap.degree", way_out="degree: 1, or schedule: sequential",
        )  # fmt: skip


def _check_parts(plan: StepPlan, batches: Sequence[Batch]) -> None:
    parts = plan.schedule.most_cuts
    fewest = min(int(batch.tokens_of_rank.min()) for batch in batches)
    if fewest < parts:
        raise BadInput(
            f"the schedule cuts a batch into {parts} parts, but a rank has {fewest} token(s)",
            where="overlap.schedule",
            way_out="schedule: sequential, or more tokens a GPU",
        )
