"""Migration: what has to be copied to get from one placement to another, over which links, and how long that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from moesim.engine import GraphBuilder, evaluate, simulate
from moesim.layout import Placement
from moesim.network import Fabric, Flows, Group
from moesim.placement.relabel import held_by

Ints = npt.NDArray[np.int64]
Network = Literal["port_load", "fluid"]
KERNEL = "nccl"  # engines copy experts by point-to-point sends of the collective library (vLLM, SGLang)


@dataclass(frozen=True)
class Moves:
    """Columns int64[M]: an expert of a layer whose weights go from rank `source` to rank `target`."""

    layer: Ints
    expert: Ints
    source: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.layer)

    def matrix(self, expert_bytes: int, ranks: int) -> Ints:
        """int64[ranks, ranks]: bytes from rank to rank."""
        cells = np.bincount(self.source * ranks + self.target, minlength=ranks * ranks)
        return cells.reshape(ranks, ranks) * expert_bytes

    def of_layers(self, first: int, stop: int) -> Moves:
        """Those of layers first .. stop - 1."""
        chosen = (self.layer >= first) & (self.layer < stop)
        return Moves(self.layer[chosen], self.expert[chosen], self.source[chosen], self.target[chosen])


@dataclass(frozen=True)
class Migration:
    """What a change of placement costs. sent int64[ranks, ranks] bytes; link_bytes float64[links].

    steps: into how many steps it was cut; seconds: all transfers; stall_s: the longest that one step waits for its own.
    """

    moves: Moves
    sent: Ints
    link_bytes: npt.NDArray[np.float64]
    steps: int
    seconds: float
    stall_s: float

    @property
    def bytes(self) -> int:
        """Bytes over links."""
        return int(self.sent.sum())


def moves_between(before: Placement, after: Placement, node_of_rank: Ints) -> Moves:
    """A move for every expert that a rank holds after and did not hold before.

    The weights come from a rank that held them: on the target's own node where there is one, and of those from the one
    that has sent least so far.
    """
    sent = np.zeros(before.num_ranks, dtype=np.int64)
    rows: list[tuple[int, int, int, int]] = []
    for layer in range(before.num_layers):
        had, has = held_by(before, layer), held_by(after, layer)
        for target, expert in np.argwhere(has & ~had):
            holders = np.flatnonzero(had[:, expert])
            near = holders[node_of_rank[holders] == node_of_rank[target]]
            source = _least(sent, near if len(near) else holders)
            sent[source] += 1
            rows.append((layer, int(expert), source, int(target)))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return Moves(*columns)


def _least(sent: Ints, ranks: Ints) -> int:
    return int(ranks[np.argmin(sent[ranks])])


def migrate(
    before: Placement, after: Placement, fabric: Fabric, expert_bytes: int, *, layers_per_step: int | None = None,
    network: Network = "port_load",
) -> Migration:  # fmt: skip
    """The transfers from `before` to `after` on ranks 0 .. R - 1 of the fabric's cluster.

    layers_per_step: layers whose experts are copied in one step, which waits for them (TensorRT-LLM's
    layer_updates_per_iter); None copies all at once and nothing is served meanwhile (vLLM, SGLang). `expert_bytes`: of
    one expert in one layer. Copies that stay on a rank cross no link and count nothing.
    """
    ranks = before.num_ranks
    moves = moves_between(before, after, fabric.cluster.node_of[:ranks].astype(np.int64))
    width = layers_per_step or before.num_layers
    parts = [moves.of_layers(first, first + width) for first in range(0, before.num_layers, width)]
    played = [_play(part.matrix(expert_bytes, ranks), fabric, network) for part in parts if len(part)]
    seconds = [time for time, _ in played]
    carried = sum((load for _, load in played), start=np.zeros(len(fabric.capacity)))
    return Migration(
        moves, moves.matrix(expert_bytes, ranks), carried, len(played), sum(seconds), max(seconds, default=0.0)
    )


def _play(matrix: Ints, fabric: Fabric, network: Network) -> tuple[float, npt.NDArray[np.float64]]:
    """Seconds of one exchange, and bytes by link."""
    group = Group(fabric.cluster, np.arange(len(matrix), dtype=np.int32))
    builder = GraphBuilder()
    coflow = fabric.coflow(KERNEL, Flows.between(group, matrix), group)
    builder.add("experts", "migration", "comm", group.devices, coflow=coflow)
    graph = builder.build()
    play = simulate if network == "fluid" else evaluate
    timeline = play(graph, fabric.capacity, network=network)
    return timeline.step_seconds, timeline.link_bytes.astype(np.float64)
