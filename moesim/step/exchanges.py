"""Exchanges of rows between the ranks of an island, all layers at once: bytes of every pair, and start-ups."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import njit
from moesim.costs import CommunicationCost
from moesim.network import Coflow, Copies, Flows, Group
from moesim.network.copies import Matrix
from moesim.step.plan import StepPlan
from moesim.units import to_ps

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


class Stage(NamedTuple):
    """All pairs of lanes that one stage of an exchange can have: source, target int32[F], as in its coflow; port
    int32[F]: the port by which each leaves its node, where lanes share them, else -1; ports: how many there are.
    """

    coflow: Coflow
    source: Int32s
    target: Int32s
    port: Int32s
    ports: int


class Exchange:
    """The all-to-all of an island: its stages there and back, and what fills them."""

    def __init__(self, plan: StepPlan, group: Group) -> None:
        self._plan, self._group = plan, group
        self._algorithm = plan.dispatch.algorithm
        self._cost = plan.fabric.communication[self._algorithm.kernel(group)]
        self._startup_of: dict[tuple[int, int, int], float] = {}
        self.there = tuple(self._stage(Flows.between(group, rows)) for rows in self._possible())
        self.back = tuple(
            self._stage(Flows.between(group, rows).reversed(group)) for rows in reversed(self._possible())
        )

    def hops(self, copies: Copies) -> tuple[Matrix, ...]:
        """Rows int64[layers, R, R] of each stage on the way there."""
        return self._algorithm.hops(copies, self._group)

    def fill(
        self, hops: tuple[Matrix, ...], layers: Int64s, size_at: Int64s, size: Int64s, *, back: bool
    ) -> list[Int64s]:  # fmt: skip
        """Bytes of every pair in the layers int64[n], from size_at int64[n, stages] of `size` on -> start-ups int64[n]
        ps, stage after stage.
        """
        dispatch = self._plan.dispatch
        message = dispatch.combine_row_bytes if back else dispatch.dispatch_row_bytes
        each = message + (0 if back else self._algorithm.header_bytes)
        stages, found = (self.back, reversed(hops)) if back else (self.there, iter(hops))
        return [
            self._filled(stage, rows, layers, back, each, message, at, size)
            for stage, rows, at in zip(stages, found, size_at.T, strict=True)
        ]

    def _filled(
        self, stage: Stage, rows: Matrix, layers: Int64s, back: bool, each: int, message: int, at: Int64s, size: Int64s
    ) -> Int64s:  # fmt: skip
        facts = np.empty((3, len(layers)), np.int64)
        per_peer = self._algorithm.message == "peer"
        exchanged(
            rows, layers, back, each, 0 if per_peer else message, stage.source, stage.target, stage.port,
            np.zeros((3, rows.shape[1]), np.int64), np.zeros(stage.ports, np.int64), at, size, facts,
        )  # fmt: skip
        return self._startups(*facts)

    def _possible(self) -> tuple[Matrix, ...]:
        """A row wherever one could go."""
        lanes, node = len(self._group.devices), self._group.node_of_lane
        all_pairs, nodes = np.ones((lanes, lanes), np.int64), np.ones((lanes, int(node.max()) + 1), np.int64)
        every = self._algorithm.hops(Copies(all_pairs, all_pairs, nodes, node, np.ones(lanes, np.int64)), self._group)
        return tuple((rows > 0).astype(np.int64) for rows in every)

    def _stage(self, flows: Flows) -> Stage:
        coflow = self._plan.fabric.coflow(self._algorithm.kernel(self._group), flows, self._group)
        devices = self._group.devices
        port = self._plan.fabric.port_out(devices[coflow.source], devices[coflow.destination])
        used, number = np.unique(port, return_inverse=True)
        shared = len(np.unique(np.stack((port, coflow.source))[:, port >= 0], axis=1).T) > int((used >= 0).sum())
        place = np.where(port >= 0, number, -1) if shared else np.full(len(port), -1)
        return Stage(coflow, coflow.source, coflow.destination, place.astype(np.int32), len(used))

    def _startups(self, peers: Int64s, messages: Int64s, busiest: Int64s) -> Int64s:
        """int64[layers] each, of the busiest rank or port -> int64[layers] ps, as Fabric does for one exchange."""
        if not any(steps.op == "all_to_all" for steps in self._cost.steps):
            return to_ps(np.where(peers == 0, 0.0, self._cost.alpha + self._cost.per_message * messages))
        asked = zip((peers + 1).tolist(), messages.tolist(), busiest.tolist(), strict=True)
        return to_ps([self._startup(self._cost, *one) for one in asked])

    def _startup(self, cost: CommunicationCost, ranks: int, messages: int, busiest: int) -> float:
        """Seconds by a table of measured start-ups; kept, as layers ask for the same."""
        key = (ranks, messages, busiest)
        if key not in self._startup_of:
            self._startup_of[key] = cost.startup("all_to_all", *key)
        return self._startup_of[key]


@njit
def exchanged(
    rows: Any, layers: Any, back: bool, each: int, message: int, source: Any, target: Any, port: Any, lane: Any,
    ports: Any, size_at: Any, size: Any, facts: Any,
) -> None:  # fmt: skip
    """rows int64[all layers, R, R] from lane to lane, the way back with `back`, of layers int64[n]; bytes of `each`
    row and of one message (0: one to each peer); pairs int32[F], with the ports by which they leave their node
    -> bytes of every pair from size_at int64[n] of `size` on; facts int64[3, n]: the most peers and bytes that one
    lane, and messages that one lane or port sends. lane int64[3, R] and ports int64[P] are scratch.
    """
    for place in range(layers.shape[0]):
        moved = rows[layers[place]]
        lane[:], ports[:] = 0, 0
        for flow in range(source.shape[0]):
            a, b = source[flow], target[flow]
            many = moved[b, a] if back else moved[a, b]
            sent = many * each
            size[size_at[place] + flow] = sent
            if sent == 0:
                continue
            messages = np.int64(1)
            if message > 0:  # sent / message, rounded up; headers alone are divided, and seldom more than one message
                heads = many * (each - message)
                messages = many + (heads > 0 if heads <= message else -(-heads // message))
            lane[0, a] += 1
            lane[1, a] += messages
            lane[2, a] += sent
            if port[flow] >= 0:
                ports[port[flow]] += messages
        for fact in range(3):
            most = np.int64(0)
            for one in range(lane.shape[1]):
                most = max(most, lane[fact, one])
            facts[fact, place] = most
        for one in range(ports.shape[0]):
            facts[1, place] = max(facts[1, place], ports[one])
