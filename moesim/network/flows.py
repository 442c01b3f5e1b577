"""Flows between devices, the group of lanes that a collective spans, and the Coflow that players see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.errors import BrokenInvariant
from moesim.hardware import Cluster

Ints = npt.NDArray[np.int32]
LATENCY_STEPS = 8  # port loads bound the landing of flows for so many latencies apart


@dataclass(frozen=True)
class Group:
    """devices int32[R]: the device of each lane."""

    cluster: Cluster
    devices: Ints

    @cached_property
    def lane_of(self) -> Ints:
        """int32[D]: the lane of each device, -1 outside the group."""
        lanes = np.full(self.cluster.num_devices, -1, dtype=np.int32)
        lanes[self.devices] = np.arange(len(self.devices), dtype=np.int32)
        return lanes

    @cached_property
    def rail_peer(self) -> Ints:
        """int32[R, N]: the device of each local node that sits on the same rail as the lane; -1 where there is none."""
        rails = self.cluster.rail_of[self.devices]
        local = self.node_of_lane
        peers = np.full((len(self.devices), int(local.max()) + 1), -1, dtype=np.int32)
        by_rail = dict(zip(zip(local.tolist(), rails.tolist(), strict=True), self.devices.tolist(), strict=True))
        for lane, rail in enumerate(rails):
            for node in range(peers.shape[1]):
                peers[lane, node] = by_rail.get((node, int(rail)), -1)
        return peers

    @cached_property
    def node_of_lane(self) -> Ints:
        """int32[R]: the node of each lane, numbered from 0 inside the group."""
        nodes = self.cluster.node_of[self.devices]
        return np.asarray(nodes - nodes.min(), dtype=np.int32)


@dataclass(frozen=True)
class Flows:
    """owner int32[F] (lane whose arrival releases it), source and destination int32[F] (devices), bytes int64[F]."""

    owner: Ints
    source: Ints
    destination: Ints
    bytes: npt.NDArray[np.int64]

    @classmethod
    def between(cls, group: Group, matrix: npt.NDArray[np.int64]) -> Flows:
        """int64[R, R] bytes from lane to lane -> one flow per pair that has any; nothing travels to oneself."""
        sent = matrix.copy()
        np.fill_diagonal(sent, 0)
        owner, target = np.nonzero(sent)
        return cls(
            owner.astype(np.int32), group.devices[owner], group.devices[target], sent[owner, target].astype(np.int64)
        )

    def reversed(self, group: Group) -> Flows:
        """The same bytes the other way, released by the lanes where they landed."""
        return Flows(group.lane_of[self.destination], self.destination, self.source, self.bytes)

    @classmethod
    def join(cls, *parts: Flows) -> Flows:
        """All flows of the parts."""
        return cls(
            np.concatenate([part.owner for part in parts]),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.destination for part in parts]),
            np.concatenate([part.bytes for part in parts]),
        )


@dataclass(frozen=True)
class Wires:
    """What a detour has to know of a cluster's L links: port int32[L], the limit of the coflow's kernel beside each, -1
    where there is none; latency int64[L] ps. Links of a path from number L on are such ports.
    """

    port: Ints
    latency: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chain:
    """Latencies that a start-up contains: of messages that follow each other, each waits for the slowest before it.

    kind int8[F]: which chain the messages of a flow belong to; rounds: messages of each chain; latency int64[F] ps.
    """

    kind: npt.NDArray[np.int8]
    rounds: tuple[int, ...]
    latency: npt.NDArray[np.int64]

    def ps(self, latency: npt.NDArray[np.int64]) -> int:
        """latency int64[F] ps of the flows -> that of the whole."""
        slowest = (int(latency[self.kind == kind].max(initial=0)) for kind in range(len(self.rounds)))
        return sum(rounds * most for rounds, most in zip(self.rounds, slowest, strict=True))


@dataclass(frozen=True)
class Coflow:
    """One collective as players see it: bytes on paths. Flows are sorted by owner.

    lanes R; owner_ptr int64[R + 1]: the flows that lane r releases are owner_ptr[r]:owner_ptr[r + 1];
    source, destination int32[F]: lanes at whose device a flow starts and lands; bytes int64[F];
    path int32[F, hops]: links, -1 padded; alpha: seconds between release and first byte; latency int64[F] ps: from
    the last byte that a flow sends to its landing, None where links state none; wires: for detours, None where links
    are no cluster's; chain: the latencies that alpha contains, None where it contains none.
    """

    lanes: int
    owner_ptr: npt.NDArray[np.int64]
    source: Ints
    destination: Ints
    bytes: npt.NDArray[np.int64]
    path: Ints
    alpha: float
    latency: npt.NDArray[np.int64] | None = None
    wires: Wires | None = None
    chain: Chain | None = None

    @cached_property
    def steps_of_latency(self) -> npt.NDArray[np.int64]:
        """int64[k] ascending: the latencies that flows with bytes have, of many so many that all are near one below."""
        if self.latency is None:
            return np.zeros(0, dtype=np.int64)
        found = np.unique(self.latency[self.bytes > 0])
        return found[np.linspace(0, len(found) - 1, min(len(found), LATENCY_STEPS)).astype(np.int64)]

    @classmethod
    def of(
        cls, flows: Flows, group: Group, path: Ints, alpha: float, latency: npt.NDArray[np.int64] | None = None,
        chain: Chain | None = None, wires: Wires | None = None,
    ) -> Coflow:  # fmt: skip
        """Flows on `path` int32[F, hops], sorted by owner. Raises BrokenInvariant on negative bytes."""
        if np.any(flows.bytes < 0):
            raise BrokenInvariant("a flow has negative bytes")
        lanes = len(group.devices)
        owners, lane_of = flows.owner, group.lane_of
        columns = (lane_of[flows.source], lane_of[flows.destination], flows.bytes, path)
        if np.any(np.diff(owners) < 0):
            order = np.argsort(owners, kind="stable")
            owners, columns = owners[order], tuple(column[order] for column in columns)  # type: ignore[assignment]
            latency = None if latency is None else latency[order]
            chain = None if chain is None else Chain(chain.kind[order], chain.rounds, chain.latency[order])
        owner_ptr = np.searchsorted(owners, np.arange(lanes + 1)).astype(np.int64)
        return cls(lanes, owner_ptr, *columns, alpha, latency, wires, chain)
