"""Fabric: what the links of a cluster achieve under the communication kernels that use them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.costs import CommunicationCost, communication_of
from moesim.errors import BadInput
from moesim.hardware import BETWEEN, INSIDE, Cluster, Paths, changed
from moesim.network.all_to_all import AllToAll
from moesim.network.collectives import Collective, exchange
from moesim.network.flows import Chain, Coflow, Flows, Group, Wires
from moesim.network.ports import OUT, rdma_paths
from moesim.network.rails import ENGINES, KERNEL
from moesim.units import LAST_SECOND, beyond_clock, from_ps, show_bandwidth, show_seconds, to_ps


class Fabric:
    """capacity float64[L'] B/s: nominal rates times what the best of the kernels in use achieves on that kind of link.

    A kernel that achieves less on some kind of link (DeepEP's normal kernel forwards over NVLink at 122 of 200 GB/s)
    gets a port of its own beside each such link, which its flows have to pass as well: the wire stays shared, the
    kernel's limit binds only the kernel. A profile that was made on NVLink and InfiniBand lends their efficiencies to
    other tiers (HCCS, PCIe, RoCE, TCP ...); `notes` says so. `left` is the share of their rates that links between
    nodes have left: after losses of the fabric, and what other traffic takes. Kernels in `over_rdma` send between GPUs
    of one node out of one port and in by another. `engine` is the one whose own all-reduce is played inside a node, ""
    where that is NCCL's. The latency that a topology states for its links comes on top of a
    kernel's start-up: that was measured on a fabric, whose own latency it contains, so shipped topologies state none.
    Raises BadInput.
    """

    def __init__(
        self,
        cluster: Cluster,
        communication: Mapping[str, CommunicationCost],
        *,
        left: float = 1.0,
        over_rdma: Collection[str] = (),
        engine: str = "",
        unused: Collection[str] = (),
    ) -> None:
        self.cluster, self.communication, self.engine = cluster, communication, engine
        nominal = np.where(_inside(cluster), 1.0, left) * cluster.link_capacity
        reached = {name: _achieved(cluster, cost) for name, cost in communication.items()}
        best = np.max(list(reached.values()), axis=0) if reached else np.ones(cluster.num_links)
        capacity, names = [nominal * best], list(cluster.link_name)
        beside = [np.zeros(0, dtype=np.int64)]
        self._paths: dict[str, tuple[Paths, ...]] = {}
        self._wires: dict[str, Wires] = {}
        for name, efficiency in reached.items():
            limited = np.flatnonzero(efficiency < best)
            port = np.full(cluster.num_links + 1, -1, dtype=np.int32)
            port[limited] = len(names) + np.arange(len(limited))
            capacity.append((nominal * efficiency)[limited])
            beside.append(limited)
            names += [f"{cluster.link_name[link]} ({name})" for link in limited]
            tables: tuple[Paths, ...] = (cluster.path, *cluster.more_paths)
            if name in over_rdma:
                tables = tuple(rdma_paths(cluster, table) for table in tables)
            self._paths[name] = tuple(_with_ports(table, port) for table in tables)
            self._wires[name] = Wires(port[:-1], to_ps(cluster.link_latency))
        self.capacity: npt.NDArray[np.float64] = np.concatenate(capacity)
        self._beside = np.concatenate(beside)
        self._most_bytes = LAST_SECOND * float(self.capacity.min(initial=np.inf))  # no link is too slow for fewer
        self._latency = np.append(np.zeros(len(names)), 0.0)  # the last is "no link"
        self._latency[: cluster.num_links] = cluster.link_latency
        self._late = bool(np.any(cluster.link_latency > 0))
        self.link_name: tuple[str, ...] = tuple(names)
        used = {name: cost for name, cost in communication.items() if name not in unused}
        self.notes = (*_borrowed(cluster, used), *_stated_latency(cluster))

    @classmethod
    def of(
        cls, cluster: Cluster, communication: Mapping[str, CommunicationCost], algorithm: AllToAll, group: Group, *,
        left: float = 1.0, engine: str = "", reduces: bool = True,
    ) -> Fabric:  # fmt: skip
        """The fabric under an all-to-all algorithm and the collectives of NCCL, with a profile's constants for both;
        group: one of those that exchange rows, which are alike; engine: whose all-reduce is played inside a node where
        the profile has its table; reduces: whether ranks share tensors, so that there are collectives of NCCL at all.
        """
        rings = ("nccl_ring", *(("nccl_nvls",) if cluster.reduces_in_switch else ()))
        engine = engine if ENGINES.get(engine) in communication else ""
        own = (ENGINES[engine],) if engine else ()
        kernels = dict.fromkeys((*algorithm.all_kernels(), *rings, *own, "nccl"))  # nccl: experts move
        used = {kernel: communication_of(communication, kernel, cluster.devices[0].name) for kernel in kernels}
        over_rdma = algorithm.all_kernels() if algorithm.same_node == "rdma" else ()
        idle = () if reduces else (*rings, "nccl")
        unused = {*algorithm.all_kernels(), *idle}.difference(algorithm.kernels_in(group))
        return cls(cluster, used, left=left, over_rdma=over_rdma, engine=engine, unused=unused)

    def lent(self, kernel: str) -> tuple[str, ...]:
        """What is said of a kernel's constants where they are those of another device, whatever `notes` leave out."""
        return tuple(_borrowed(self.cluster, {kernel: self.communication[kernel]}))

    def kernel_ports(self, links: Collection[int]) -> list[int]:
        """The ports beside these links, at which kernels that reach less are limited."""
        found = self.cluster.num_links + np.flatnonzero(np.isin(self._beside, list(links)))
        return [int(port) for port in found]

    def coflow(self, kernel: str, flows: Flows, group: Group, message_bytes: int | None = None) -> Coflow:
        """An exchange with a message to each peer, or of message_bytes (see `collective`)."""
        return self._timed(
            kernel, exchange(flows, message_bytes, self.port_out(flows.source, flows.destination)), group
        )

    def collective(self, collective: Collective, group: Group) -> Coflow:
        """A ring, a tree or NVLS, by the library's kernel for it, or an engine's own."""
        return self._timed((KERNEL | ENGINES).get(collective.algorithm, "nccl"), collective, group)

    def fastest(self, candidates: Sequence[Collective], group: Group) -> tuple[Collective, Coflow]:
        """The one that is done first alone on the network, as NCCL chooses: start-up, and bytes over bandwidth."""
        timed = [(one, self.collective(one, group)) for one in candidates]
        return min(timed, key=lambda both: self.alone(both[1]))

    def alone(self, coflow: Coflow) -> float:
        """Seconds of a coflow that nothing else meets, by the loads of its links."""
        used = coflow.path >= 0
        link, carried = coflow.path[used], np.broadcast_to(coflow.bytes[:, None], coflow.path.shape)[used]
        load = np.bincount(link, carried, minlength=len(self.capacity))
        busy = np.divide(load, self.capacity, out=np.where(load > 0, np.inf, 0.0), where=self.capacity > 0)
        return coflow.alpha + float(busy.max(initial=0.0))

    def port_out(self, source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Devices int32[F] -> int32[F]: the link by which a flow leaves its node, -1 where it stays."""
        path = self.cluster.path[source, destination]
        out = self._leaves[path]
        found = np.take_along_axis(path, out.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.where(out.any(axis=1), found, -1).astype(np.int32)

    @cached_property
    def _leaves(self) -> npt.NDArray[np.bool_]:
        """bool[L + 1]: links out of a node; the last is "no link"."""
        return np.array([kind in OUT for kind in self.cluster.link_kind] + [False], dtype=np.bool_)

    def _timed(self, kernel: str, collective: Collective, group: Group) -> Coflow:
        """Flows of one collective on their paths, after the kernel's start-up for it.

        A flow that ECMP hashes by queue pair is divided over its paths. Raises BadInput where a flow has no route.
        """
        cost, sent = self.communication[kernel], collective.flows
        busiest = float(np.bincount(sent.source, sent.bytes).max(initial=0.0)) if len(sent.source) else 0.0
        alpha = cost.startup(
            collective.op, collective.ranks, collective.messages, busiest, further=collective.further,
            crossings=collective.crossings,
        )  # fmt: skip
        flows, path = _spread(sent, self._paths[kernel])
        self._check_clock(flows, path)
        lost = np.flatnonzero((path[:, 0] < 0) & (flows.bytes > 0))
        if len(lost):
            source, destination = flows.source[lost[0]], flows.destination[lost[0]]
            raise BadInput(f"no route from gpu{source} to gpu{destination}", where=f"topology {self.cluster.name}")
        return Coflow.of(flows, group, path, *self._delays(collective, flows, path, alpha), self._wires[kernel])

    def _delays(
        self, collective: Collective, flows: Flows, path: npt.NDArray[np.int32], alpha: float
    ) -> tuple[float, npt.NDArray[np.int64] | None, Chain | None]:
        """Start-up in seconds, the latency of each flow in ps, and what the start-up contains of latencies: those of an
        exchange wait for one another nowhere, and land one by one; messages of a ring or tree follow each other.
        """
        if not self._late:
            return alpha, None, None
        latency = to_ps(self._latency[path].sum(axis=1))
        if collective.op in ("all_to_all", "point_to_point"):
            return alpha, latency, None
        away = self.cluster.node_of[flows.source] != self.cluster.node_of[flows.destination]
        if collective.crossings:
            rounds: tuple[int, ...] = (collective.messages + collective.further, collective.crossings)
        else:
            away, rounds = np.zeros_like(away), (collective.messages,)
        chain = Chain(away.astype(np.int8), rounds, latency)
        return alpha + float(from_ps(chain.ps(latency))), None, chain

    def _check_clock(self, flows: Flows, path: npt.NDArray[np.int32]) -> None:
        """Raises BadInput where a link takes longer for the bytes of one exchange than the clock can tell."""
        if float(flows.bytes.sum()) < self._most_bytes:
            return
        used = path >= 0
        carried = np.broadcast_to(flows.bytes[:, None], path.shape)[used]
        load = np.bincount(path[used], carried, minlength=len(self.capacity))
        seconds = np.divide(load, self.capacity, out=np.where(load > 0, np.inf, 0.0), where=self.capacity > 0)
        worst = int(np.argmax(seconds))
        if seconds[worst] >= LAST_SECOND:
            name, rate = self.link_name[worst], show_bandwidth(float(self.capacity[worst]))
            raise beyond_clock(f"link {name} ({rate}) takes {seconds[worst]:.3g} s for one exchange")


def _inside(cluster: Cluster) -> npt.NDArray[np.bool_]:
    """bool[L]: links on a path between two GPUs of one node."""
    inside = np.zeros(cluster.num_links + 1, dtype=np.bool_)  # the last is "no link"
    inside[np.unique(cluster.path[cluster.mates()])] = True
    return inside[:-1]


def _achieved(cluster: Cluster, cost: CommunicationCost) -> npt.NDArray[np.float64]:
    """float64[L]: the fraction of each link's nominal rate that the kernel reaches, by the link's tier; a
    GPU's own links inside a node no more than its SMs can copy.
    """
    wire = np.array([cost.efficiency.get(_lender(cost, _tier(kind)), 1.0) for kind in cluster.link_kind])
    if not cost.sm_rate:
        return wire
    most = cost.sms * cost.sm_rate / cluster.link_capacity
    own = [_tier(kind) in INSIDE and not kind.endswith("_trunk") for kind in cluster.link_kind]
    return np.where(own, np.minimum(wire, most), wire)


def _tier(kind: str) -> str:
    """ "nvlink_up" -> "nvlink"."""
    return kind.rsplit("_", 1)[0]


def _lender(cost: CommunicationCost, tier: str) -> str:
    """The tier whose efficiency holds for `tier`: its own, or else NVLink's inside and the NIC's between nodes."""
    lender = "nvlink" if tier in INSIDE else "nic" if tier in BETWEEN else tier
    return lender if lender in cost.efficiency and tier not in cost.efficiency else tier


def _borrowed(cluster: Cluster, communication: Mapping[str, CommunicationCost]) -> Iterator[str]:
    here = cluster.devices[0].name
    for name, cost in communication.items():
        if cost.device and cost.device != here:
            yield f"{name}: constants were fitted on {cost.device}, used on {here}: assumed"
    for tier in dict.fromkeys(_tier(kind) for kind in cluster.link_kind):
        lenders = {_lender(cost, tier) for cost in communication.values()} - {tier}
        for lender in sorted(lenders):
            yield f"{tier} links take the efficiency of {lender}: assumed"


def _stated_latency(cluster: Cluster) -> Iterator[str]:
    """What is done with latencies that a topology states."""
    if not np.any(cluster.link_latency > 0):
        return
    longest = float(np.append(cluster.link_latency, 0.0)[cluster.path[cluster.witnesses()]].sum(axis=1).max(initial=0))
    if longest > 0:
        yield (
            f"links state a latency, up to {show_seconds(longest)} from GPU to GPU: it comes on top of the kernels' "
            "start-up, which contains that of the fabric it was measured on"
        )


def _spread(flows: Flows, tables: tuple[Paths, ...]) -> tuple[Flows, npt.NDArray[np.int32]]:
    """F flows and one table of paths per queue pair -> flows of one path each, and their paths; bytes stay the same."""
    if len(tables) == 1:
        return flows, tables[0][flows.source, flows.destination]
    found = [table[flows.source, flows.destination] for table in tables]
    wide = max(path.shape[1] for path in found)
    paths = np.stack([np.pad(path, ((0, 0), (0, wide - path.shape[1])), constant_values=-1) for path in found])
    parts = np.where(np.any(paths != paths[0], axis=(0, 2)), len(tables), 1)
    row = np.repeat(np.arange(len(parts)), parts)
    queue = np.arange(len(row)) - np.repeat(np.cumsum(parts) - parts, parts)
    whole, extra = np.divmod(flows.bytes[row], parts[row])
    sizes = whole + (queue < extra)
    return Flows(flows.owner[row], flows.source[row], flows.destination[row], sizes), paths[queue, row]


def _with_ports(paths: Paths, port: npt.NDArray[np.int32]) -> Paths:
    """Paths -> the same with the kernel's ports beside the links they limit, packed to the front."""
    if np.all(port < 0):
        return paths

    def beside(a: object, b: object, path: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        first, rest = path[..., :1], path[..., 1:]
        both = np.concatenate((port[first], first, rest, port[rest]), axis=-1)  # ports at the ends, as own ports are
        order = np.argsort(both < 0, axis=-1, kind="stable")
        return np.take_along_axis(both, order, axis=-1)

    wide = changed(paths, beside, 2 * paths.shape[2])
    if not isinstance(wide, np.ndarray):
        return wide
    return np.ascontiguousarray(wide[..., : int((wide >= 0).sum(axis=-1).max())])
