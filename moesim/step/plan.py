"""Everything that stays the same from one micro-batch to the next: who computes what, by which rules and prices."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from moesim.engine import Speed, TaskGraph
from moesim.errors import BadInput
from moesim.layout import OPTIMIZERS, Layout, Optimizer, Placement, Shards
from moesim.models import MoEModel
from moesim.network import AllToAll, Fabric, Group
from moesim.routing import RoutingSource
from moesim.schedules import Node, Schedule
from moesim.step.context import ContextRing
from moesim.step.dispatch import EVEN
from moesim.step.ops import LayerOps


@dataclass(frozen=True)
class Dispatch:
    """The all-to-all of a step: its algorithm, and the bytes of one token's row on the way there and back, in the
    backward pass of its gradient. meets: no row leaves before the last rank has come, as the algorithm has it; played
    where ranks have clocks of their own from one micro-batch to the next (training in pipelines).
    """

    algorithm: AllToAll
    dispatch_row_bytes: int
    combine_row_bytes: int
    slowdown: float  # all SMs over those that its kernels leave to what computes beside them
    meets: bool = False


def slowdown(algorithm: AllToAll, sms: int, held: int) -> float:
    """See Dispatch; sms of a GPU, of which its kernels hold so many. Raises BadInput where none is left."""
    if held >= sms:
        what = f"kernels of {algorithm.name} hold {held} SMs here, and a GPU has {sms}"
        raise BadInput(what, where="comm.dispatch", way_out="dispatch: nccl, or costs of these GPUs")
    return sms / (sms - held)


@dataclass(frozen=True)
class StepPlan:
    """What `lower` needs beside the batch. `recompute` holds Megatron's module names ("core_attn", "moe").

    gradient_bytes: of the sum of a parameter's gradients, which every micro-batch reads and writes and ranks reduce:
    bf16, as the ledger of a step has it, or fp32 as Megatron-LM does by default.
    elsewhere: dense parameters that ranks of other pipeline stages hold.
    zero, shard: stage of ZeRO and ranks of a shard group (layout/shards.py).
    replicas: how a token picks one of an expert's replicas (step/dispatch.py).
    interference: times as long as alone that a rank computes while a transfer of its own is under way.
    context: the rings of ranks that share sequences, None where each has whole ones.
    others, kinds int32[ranks]: prices on GPUs of other kinds, and which of `ops` (0) and them each rank has.
    """

    model: MoEModel
    layout: Layout
    placement: Placement
    routing: RoutingSource
    ops: LayerOps
    fabric: Fabric
    dispatch: Dispatch
    schedule: Schedule
    recompute: frozenset[str] = frozenset()
    optimizer: Optimizer = OPTIMIZERS["adam"]
    host_seconds: float = 0.0
    gradient_bytes: int = 2
    elsewhere: int = 0
    zero: int = 1
    shard: int | None = None
    replicas: int = EVEN
    interference: float = 1.0
    others: tuple[LayerOps, ...] = ()
    context: ContextRing | None = None
    kinds: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    @property
    def shards(self) -> Shards:
        """Who keeps which part of what data-parallel ranks hold alike."""
        return Shards.of(self.layout, self.zero, self.shard)

    @property
    def exchanges(self) -> bool:
        """Tokens are sent to ranks with other experts: not where every rank has all tokens of the group already."""
        return self.layout.expert_parallel > 1 and self.ops.spread.residual == "sliced"

    @property
    def received_bytes(self) -> int | None:
        """Of a row that an expert gets from another rank, as it came; None where none does."""
        return self.dispatch.dispatch_row_bytes if self.exchanges else None

    def reserved_bytes(self, tokens: int) -> int:
        """What the all-to-all keeps on a rank that sends so many tokens at once at most."""
        algorithm, slots = self.dispatch.algorithm, self.placement.num_slots
        return algorithm.reserved_bytes(tokens, slots, self.model.row_width) if self.exchanges else 0

    @property
    def expert_group(self) -> Group:
        """The first of those that exchange rows, which are alike."""
        return Group(self.fabric.cluster, self.layout.expert_groups()[0])

    def nodes(self, micro_batches: int, training: bool) -> tuple[Node, ...]:
        """What each expert-parallel group does in a step, in program order."""
        moe = [layer in self.model.moe_layers for layer in range(self.model.num_layers)]
        return self.schedule.step(moe, micro_batches, training=training, replay="moe" in self.recompute)

    def stretch(self, node: Node) -> float:
        """How much longer a node computes than on all SMs: beside transfers that hold some it has the others."""
        return self.dispatch.slowdown if node.shares_sms and self.exchanges else 1.0

    def speed(self, graph: TaskGraph) -> Speed | None:
        """How classes of one of its graphs slow each other on a rank: what computes, beside whatever transfer holds
        another stream, waiting in it included; None where nothing does.
        """
        if self.interference == 1.0:
            return None
        moves = graph.coflow >= 0
        transfers, computing = ({graph.classes[one] for one in graph.task_class[which].tolist()}
                                for which in (moves, ~moves))  # fmt: skip
        return Speed({(one, (beside,)): 1 / self.interference for one in computing for beside in transfers})
