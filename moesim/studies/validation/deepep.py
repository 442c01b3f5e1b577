"""A measured DeepEP kernel as a Case, and its time by moesim's own path: routes of single tokens, the algorithm's
coflow on the shipped topology, port loads or the fluid network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.costs import CommunicationCost, communication_of
from moesim.engine import GraphBuilder, Timeline, choose_level, evaluate, simulate
from moesim.hardware import Cluster, load_cluster
from moesim.models import row_bytes
from moesim.network import AllToAll, Copies, Fabric, Flows, Group, all_to_all, count_copies
from moesim.network.ports import rdma_paths

BLOCK = 1 << 14  # tokens whose scores are in memory at once


@dataclass(frozen=True)
class Case:
    """What a row of a table measured: kernel, op, EP ranks, library version and path, and the shape of the test."""

    algorithm: str
    version: str | None
    path: str | None
    op: str
    ranks: int
    tokens: int
    top_k: int
    groups: int | None
    experts: int
    hidden: int
    dtype: str
    topology: str

    @property
    def row_bytes(self) -> int:
        """One token's row on the wire."""
        return row_bytes(self.hidden, self.dtype)


@dataclass(frozen=True)
class Situation:
    """The same on a cluster: who sends what to whom."""

    case: Case
    algorithm: AllToAll
    group: Group
    copies: Copies

    @classmethod
    def of(cls, case: Case) -> Situation:
        """Tokens are routed uniformly, within the best `groups` nodes. Raises BadInput."""
        algorithm = all_to_all.find(case.algorithm).configured(case.version, case.path)
        cluster = _cluster(case.topology, case.ranks, algorithm.same_node == "rdma")
        group = Group(cluster, np.arange(case.ranks, dtype=np.int32))
        return cls(case, algorithm, group, _copies(case.topology, case.ranks, case.tokens, case.top_k, case.groups,
                                                   case.experts))  # fmt: skip

    @cached_property
    def stages(self) -> all_to_all.Stages:
        """The flows of the algorithm."""
        way = self.algorithm.dispatch if self.case.op == "dispatch" else self.algorithm.combine
        return way(self.copies, self.case.row_bytes, self.group)

    def seconds(self, communication: Mapping[str, CommunicationCost]) -> float:
        """What a rank measures, on average: until all its rows have landed and everybody has begun."""
        kernel = self.algorithm.kernel(self.group)
        cluster = self.group.cluster
        fabric = Fabric(cluster, {kernel: communication_of(communication, kernel, cluster.devices[0].name)})
        return sum(self._stage(fabric, kernel, flows) for flows in self.stages)

    def logical_bytes(self, tier: str) -> float:
        """Bytes that published bandwidths count, a rank's mean: with copies to the sender's own node or device.

        tier "rdma": a copy per (token, node), as test_internode.py counts; "nvlink": a row per (token, device), as
        test_intranode.py; "messages": a row per (token, expert), as test_low_latency.py.
        """
        counted = {"rdma": self.copies.nodes, "nvlink": self.copies.devices, "messages": self.copies.pairs}[tier]
        return float(counted.sum()) / self.case.ranks * self.case.row_bytes

    def _stage(self, fabric: Fabric, kernel: str, flows: Flows) -> float:
        message = self.case.row_bytes if self.algorithm.message == "row" else None
        builder = GraphBuilder()
        coflow = fabric.coflow(kernel, flows, self.group, message)
        builder.add(self.case.op, self.case.op, "comm", np.arange(self.case.ranks), coflow=coflow)
        timeline = _play(builder, fabric)
        return float(timeline.arrival.mean()) / 1e12


def _play(builder: GraphBuilder, fabric: Fabric) -> Timeline:
    """Port loads, by which the constants were fitted; the fluid network where flows meet elsewhere than at ports.

    The fluid network of the whole table takes over nine CPU minutes, port loads 18 s.
    """
    cluster = fabric.cluster
    asked = None if cluster.collides else "port_load"
    player, _ = choose_level(
        gpus=cluster.num_devices, oversubscription=cluster.oversubscription, collides=cluster.collides, asked=asked
    )
    return (simulate if player == "simulate" else evaluate)(builder.build(), fabric.capacity)


@lru_cache(maxsize=64)
def _cluster(topology: str, ranks: int, over_rdma: bool) -> Cluster:
    """Just enough nodes; over RDMA a second one, so that there are ports, which all paths go through."""
    per_node = load_cluster(topology).gpus_per_node
    cluster = load_cluster(topology, nodes=max(-(-ranks // per_node), 2 if over_rdma else 1))
    return replace(cluster, path=rdma_paths(cluster, cluster.path)) if over_rdma else cluster


@lru_cache(maxsize=64)
def _copies(topology: str, ranks: int, tokens: int, top_k: int, groups: int | None, experts: int) -> Copies:
    cluster = _cluster(topology, ranks, False)
    node_of = cluster.node_of[:ranks]
    nodes = int(node_of.max()) + 1
    random = streams.stream(0, "validation", "deepep", ranks, tokens)
    source = np.repeat(np.arange(ranks, dtype=np.int32), tokens)
    lanes = np.empty((len(source), top_k), dtype=np.int32)
    for first in range(0, len(source), BLOCK):
        scores = random.random((min(BLOCK, len(source) - first), experts), dtype=np.float32)
        chosen = group_limited(scores, top_k, nodes, min(groups or nodes, nodes))
        lanes[first : first + BLOCK] = chosen // (experts // ranks)
    return count_copies(source, lanes, ranks, node_of)


def group_limited(
    scores: npt.NDArray[np.float32], top_k: int, nodes: int, groups: int
) -> npt.NDArray[np.int64]:  # fmt: skip
    """scores float32[T, E] in [0, 1) -> int64[T, k]: the best experts of the `groups` nodes with the best experts.

    Source: the routing that DeepEP's test_internode.py draws.
    """
    if groups < nodes:
        by_node = scores.reshape(len(scores), nodes, -1)
        best = by_node.max(axis=2)
        limit = np.partition(best, nodes - groups, axis=1)[:, nodes - groups, None]
        scores = np.where((best >= limit)[:, :, None], by_node, np.float32(-1)).reshape(scores.shape)
    return np.argpartition(scores, -top_k, axis=1)[:, -top_k:]
