"""Chain: the tasks of one node, each after the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.engine import Join
from moesim.network import Coflow
from moesim.network.all_to_all import Stages
from moesim.schedules import COMM, INTRA, Node
from moesim.step.context import key_value_bytes
from moesim.step.rings import op_of, ring, tensor_bytes
from moesim.step.site import Site
from moesim.step.work import Work

Edge = tuple[int, Join]
NOTIFY: Final = "_notify"  # behind the name of an exchange: in which its ranks wait for each other


class Chain:
    """node at a site; ready: what its next task waits for."""

    def __init__(self, site: Site, node: Node, ready: Sequence[Edge]) -> None:
        self.site, self.node, self.ready = site, node, list(ready)
        self.plan, self.batch = site.plan, site.batch(node)

    def compute(self, name: str, work: Work, balanced: Work | None = None) -> None:
        """A task on every rank; balanced: its work with balanced rows, where that differs."""
        task = self.site.lowering.compute(name, self.site.ranks, work, self.ready, self.node, balanced)
        self.ready = [(task, Join.LANE)]

    def priced(self, name: str) -> None:
        """A task whose work is the same in every layer."""
        self.compute(name, self.site.price(name, self.node))

    def transfer(self, name: str, coflow: Coflow, *, inside: bool = False) -> None:
        """A destination goes on when its own bytes have landed. inside: nothing leaves a node."""
        stream = INTRA if inside and self.plan.schedule.apart and self.site.spans else COMM
        task = self.site.lowering.transfer(name, self.site.ranks, coflow, self.ready, self.node, stream)
        self.ready = [(task, Join.ARRIVAL)]

    def exchange(self, name: str, stages: Stages, row_bytes: int) -> None:
        """The expert all-to-all, stage after stage; before it ranks may have to meet."""
        algorithm, fabric, group = self.plan.dispatch.algorithm, self.plan.fabric, self.site.group
        message_bytes = row_bytes if algorithm.message == "row" else None
        if self.plan.dispatch.meets:
            met = self.site.lowering.meeting(name + NOTIFY, self.site.ranks, self.ready, self.node)
            self.ready = [(met, Join.GROUP)]
        for flows in stages:
            self.site.lowering.sent[flows.source, flows.destination] += flows.bytes
            inside = self._inside(flows.source, flows.destination)
            self.transfer(name, fabric.coflow(algorithm.kernel(group), flows, group, message_bytes), inside=inside)

    def context_ring(self, name: str, *, gradients: bool) -> None:
        """What attention does not hide of keys and values that go round the ranks which share its sequences."""
        if self.plan.context is None:
            return
        ops, core = self.plan.ops.at(self.node.layer), self.site.price("core", self.node)
        if gradients:
            core = ops.backward("attention", core, self.node.way)
        tokens = int(self.batch.tokens_of_rank.max()) * ops.spread.tensor
        kept = (1 + gradients) * key_value_bytes(ops.spread, ops.mixer, tokens)
        seen = self.plan.context.seen(np.broadcast_to(core.total, len(self.site.ranks)), kept)
        if seen.any():
            task = self.site.lowering.meeting(name, self.site.ranks, self.ready, self.node, seen)
            self.ready = [(task, Join.LANE)]

    def _inside(self, source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32]) -> bool:
        node = self.plan.fabric.cluster.node_of
        return bool(np.all(node[source] == node[destination]))

    def gather_tokens(self, of: str = "") -> None:
        """Before what is spread over a tensor group: every rank needs all tokens. of: of what, outside layers."""
        if self.plan.ops.spread.residual == "sliced":
            self.tensor_ring(of + "all_gather")

    def gather_again(self, of: str = "") -> None:
        """Where weight gradients need all tokens of a group whose ranks kept a slice each: Megatron gathers them once
        more instead of keeping them (Korthikanti et al. 2022, section 4.2.2).
        """
        if self.batch.training:
            self.gather_tokens(of)

    def sum_tokens(self, of: str = "") -> None:
        """After it: partial sums are added up, for each rank's slice of the tokens or for all of them."""
        self.tensor_ring(of + ("reduce_scatter" if self.plan.ops.spread.residual == "sliced" else "all_reduce"))

    def tensor_ring(self, name: str) -> None:
        """Inside each tensor-parallel group."""
        self.ring(name, self.plan.layout.tensor_parallel, tensor_bytes(self.plan, name, self.batch))

    def ring(self, name: str, width: int, own: npt.NDArray[np.int64]) -> None:
        """own int64[lanes] bytes, in groups of `width` consecutive lanes."""
        if width > 1:
            ranks = self.site.ranks.reshape(-1, width)
            inside = self._inside(ranks, ranks[:, :1])
            self.transfer(name, ring(self.plan.fabric, self.site.group, op_of(name), width, own), inside=inside)
