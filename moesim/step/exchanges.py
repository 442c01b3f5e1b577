"""Exchanges of rows between the ranks of an island, all layers at once: bytes of every pair, and start-ups."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, njit
from moesim.errors import BrokenInvariant
from moesim.network import Coflow, Copies, Flows, Group
from moesim.network.copies import Matrix
from moesim.step.plan import StepPlan
from moesim.units import to_ps

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


class Stage(NamedTuple):
    """All pairs of lanes that one stage of an exchange can have, as in its coflow: source[n], int32[N], sends the flows
    run[n]:run[n + 1]. cell int64[F]: where the rows of each stand in a matrix [R, R] in a row; port int32[F]: the port
    by which each leaves its node, where lanes share them, else -1; ports: how many there are, 0 where none is shared.
    """

    coflow: Coflow
    source: Int32s
    run: Int64s
    cell: Int64s
    port: Int32s
    ports: int


class Exchange:
    """The all-to-all of an island: its stages there and back, and what fills them."""

    def __init__(self, plan: StepPlan, group: Group) -> None:
        self._plan, self._group = plan, group
        self._algorithm = plan.dispatch.algorithm
        self._cost = plan.fabric.communication[self._algorithm.kernel(group)]
        self._tabled = any(steps.op == "all_to_all" for steps in self._cost.steps)
        self._startup_of: dict[tuple[int, int, int], int] = {}  # ps; kept, as layers ask for the same
        self.there = tuple(self._stage(Flows.between(group, rows), back=False) for rows in self._possible())
        self.back = tuple(
            self._stage(Flows.between(group, rows).reversed(group), back=True) for rows in reversed(self._possible())
        )

    def hops(self, copies: Copies) -> tuple[Matrix, ...]:
        """Rows int64[layers, R, R] of each stage on the way there. Raises BrokenInvariant."""
        found = self._algorithm.hops(copies, self._group)
        if len(found) != len(self.there):
            many = f"{len(found)} stages for a batch, {len(self.there)} where every lane sends to every other"
            raise BrokenInvariant(f"hops of {self._algorithm.name}: {many}; how many may depend on the lanes alone")
        return found

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
            self._filled(stage, rows, layers, each, message, at, size)
            for stage, rows, at in zip(stages, found, size_at.T, strict=True)
        ]

    def _filled(
        self, stage: Stage, rows: Matrix, layers: Int64s, each: int, message: int, at: Int64s, size: Int64s
    ) -> Int64s:
        facts = np.empty((3, len(layers)), np.int64)
        per_peer, lanes = self._algorithm.message == "peer", rows.shape[1]
        exchanged(
            rows.reshape(len(rows), -1), layers, each, 0 if per_peer else message, stage.source, stage.run, stage.cell,
            stage.port, np.zeros((3, lanes), np.int64), np.zeros(stage.ports, np.int64), at, size, facts,
        )  # fmt: skip
        return self._startups(*facts)

    def _possible(self) -> tuple[Matrix, ...]:
        """A row wherever one could go."""
        lanes, node = len(self._group.devices), self._group.node_of_lane
        all_pairs, nodes = np.ones((lanes, lanes), np.int64), np.ones((lanes, int(node.max()) + 1), np.int64)
        every = self._algorithm.hops(Copies(all_pairs, all_pairs, nodes, node, np.ones(lanes, np.int64)), self._group)
        return tuple((rows > 0).astype(np.int64) for rows in every)

    def _stage(self, flows: Flows, *, back: bool) -> Stage:
        """back: what lands at its source on the way there leaves it again."""
        coflow = self._plan.fabric.coflow(self._algorithm.kernel(self._group), flows, self._group)
        devices, source, target = self._group.devices, coflow.source, coflow.destination
        port = self._plan.fabric.port_out(devices[source], devices[target])
        used, number = np.unique(port, return_inverse=True)
        shared = len(np.unique(np.stack((port, source))[:, port >= 0], axis=1).T) > int((used >= 0).sum())
        place = np.where(port >= 0, number, -1) if shared else np.full(len(port), -1)
        begin = np.flatnonzero(np.append(True, np.diff(source) != 0)[: len(source)])
        one, other = (target, source) if back else (source, target)
        return Stage(
            coflow, source[begin], np.append(begin, len(source)), one.astype(np.int64) * len(devices) + other,
            place.astype(np.int32), len(used) if shared else 0,
        )  # fmt: skip

    def _startups(self, peers: Int64s, messages: Int64s, busiest: Int64s) -> Int64s:
        """int64[layers] each, of the busiest rank or port -> int64[layers] ps, as Fabric does for one exchange."""
        if not self._tabled:
            return to_ps(np.where(peers == 0, 0.0, self._cost.alpha + self._cost.per_message * messages))
        asked = list(zip((peers + 1).tolist(), messages.tolist(), busiest.tolist(), strict=True))
        if new := list(set(asked).difference(self._startup_of)):
            seconds = [self._cost.startup("all_to_all", *one) for one in new]
            self._startup_of.update(zip(new, to_ps(seconds).tolist(), strict=True))
        return np.array([self._startup_of[one] for one in asked], dtype=np.int64)


@njit
def exchanged(
    rows: Any, layers: Any, each: int, message: int, source: Any, run: Any, cell: Any, port: Any, lane: Any, ports: Any,
    size_at: Any, size: Any, facts: Any,
) -> None:  # fmt: skip
    """rows int64[all layers, R * R] from lane to lane, of layers int64[n]; bytes of `each` row and of one message (0:
    one to each peer); the columns of a Stage -> bytes of every pair from size_at int64[n] of `size` on; facts
    int64[3, n]: the most peers and bytes that one lane, and messages that one lane or port sends. lane int64[3, R] and
    ports int64[P] are scratch.
    """
    header = each - message if message > 0 else 0
    for place in range(layers.shape[0]):
        moved, at = rows[layers[place]], size_at[place]
        lane[:], ports[:] = 0, 0
        for one in range(source.shape[0]):
            total, peers, most = np.int64(0), np.int64(0), np.int64(0)
            for flow in range(run[one], run[one + 1]):
                many = moved[cell[flow]]
                size[at + flow] = many * each
                total += many
                peers += many > 0
                most = max(most, many)
            lane[0, source[one]] += peers
            lane[2, source[one]] += total * each
            if message == 0 or most * header <= message:  # each peer's headers fill a message at most
                lane[1, source[one]] += peers if message == 0 else total + (peers if header > 0 else 0)
            else:
                for flow in range(run[one], run[one + 1]):
                    lane[1, source[one]] += _messages(moved[cell[flow]], header, message)
        for flow in range(cell.shape[0] if ports.shape[0] else 0):
            ports[port[flow]] += _messages(moved[cell[flow]], header, message) if port[flow] >= 0 else 0
        for fact in range(3):
            facts[fact, place] = _most(lane[fact])
        facts[1, place] = max(facts[1, place], _most(ports))


@inlined
def _messages(many: int, header: int, message: int) -> Any:
    """Of so many rows to one peer, their headers together; one where a peer gets all at once."""
    return np.int64(many > 0) if message == 0 else many - (-many * header // message)


@inlined
def _most(numbers: Any) -> Any:
    most = np.int64(0)
    for one in range(numbers.shape[0]):
        most = max(most, numbers[one])
    return most
