"""Collectives over any groups of lanes, as flows with what their start-up depends on.

A pipelined collective keeps every hop of it busy at once, so its flows run together and take bytes over bandwidth; the
rounds that the first chunk needs are its messages. Alone on a switch of bandwidth B and `a` seconds a message:

    ring all-gather, reduce-scatter  (n - 1) (a + S / (n B))        S bytes: the whole buffer
    ring all-reduce                  2 (n - 1) (a + S / (n B))
    tree all-reduce                  2 ceil(log2 n) a + 2 S / B      two trees with half the buffer each
    broadcast along a chain          (n - 1) a + S / B

Sources: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH" (2005); Sanders,
Speck, Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan" (2009), which NCCL's tree follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.network.flows import Flows, Group

Lanes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Collective:
    """flows; op: its name in tables of start-ups; ranks: of one of its groups; messages: how many follow each other.

    Over several nodes (`rails`) ranks and messages are those inside one of them; `further` messages follow inside other
    nodes and `crossings` between nodes. algorithm: whose flows they are, as people call it.
    """

    op: str
    ranks: int
    messages: int
    flows: Flows
    further: int = 0
    crossings: int = 0
    algorithm: str = ""


def groups(lanes: int, width: int, stride: int = 1) -> Lanes:
    """Lanes 0 .. lanes - 1 in groups of `width` that lie `stride` apart -> int32[lanes / width, width]."""
    blocks = np.arange(lanes, dtype=np.int32).reshape(-1, width, stride)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1).reshape(-1, width))


def exchange(flows: Flows, message_bytes: int | None = None, port: Lanes | None = None) -> Collective:
    """Grouped sends and receives: an all-to-all, or one of its stages. A message to each peer, or of message_bytes.

    Its ranks are the busiest lane and its peers: who exchanges nothing costs nothing. port int32[F]: the port by which
    each flow leaves its node (-1: it stays); a port that GPUs share handles the messages of all of them in turn.
    """
    sends = flows.bytes > 0
    peers = int(np.bincount(flows.source[sends]).max(initial=0))
    each = np.where(sends, 1 if message_bytes is None else -(-flows.bytes // (message_bytes or 1)), 0)
    messages = int(np.bincount(flows.source, each).max(initial=0))
    if port is not None:
        leaves = port >= 0
        messages = max(messages, int(np.bincount(port[leaves], each[leaves]).max(initial=0)))
    return Collective("all_to_all", peers + 1, messages, flows)


def all_gather(group: Group, rings: Lanes, part: npt.NDArray[np.int64]) -> Collective:
    """rings int32[G, n] lanes of each ring in order, part int64[R] bytes that each lane begins with.

    A lane hands on every part but the one that its successor began with.
    """
    total = part[rings].sum(axis=1, keepdims=True)
    return _ring("all_gather", 1, group, rings, total - np.roll(part[rings], -1, axis=1))


def reduce_scatter(group: Group, rings: Lanes, part: npt.NDArray[np.int64]) -> Collective:
    """The same ring; part int64[R] bytes that each lane ends with: partial sums of its own part leave it last."""
    total = part[rings].sum(axis=1, keepdims=True)
    return _ring("reduce_scatter", 1, group, rings, total - part[rings])


def all_reduce(group: Group, rings: Lanes, part: npt.NDArray[np.int64]) -> Collective:
    """Reduce-scatter and all-gather in one: part int64[R] bytes of the buffer that each lane sums up."""
    total = 2 * part[rings].sum(axis=1, keepdims=True)
    return _ring("all_reduce", 2, group, rings, total - part[rings] - np.roll(part[rings], -1, axis=1))


def tree_all_reduce(group: Group, trees: Lanes, size: int) -> Collective:
    """trees int32[G, n] lanes of each group, `size` bytes that every lane has: up and down two trees, half on each.

    A lane inside one tree is a leaf of the other, so that no port carries much more than twice the buffer.
    """
    ranks = trees.shape[1]
    child = np.arange(1, ranks)
    up = np.array([_parent(rank, ranks) for rank in range(1, ranks)], dtype=np.int64).reshape(-1)
    other = np.arange(ranks)[::-1] if ranks % 2 == 0 else np.roll(np.arange(ranks), -1)
    edges = [
        (trees[:, child], trees[:, up], size - size // 2),
        (trees[:, other[child]], trees[:, other[up]], size // 2),
    ]
    ways = [(a, b, half) for child_, parent, half in edges for a, b in ((child_, parent), (parent, child_))]
    flows = Flows.join(*(lane_flows(group, a.ravel(), b.ravel(), np.full(a.size, half)) for a, b, half in ways))
    return Collective("all_reduce", ranks, 2 * (ranks - 1).bit_length(), flows, algorithm="tree")


def broadcast(group: Group, chains: Lanes, size: int) -> Collective:
    """chains int32[G, n]: `size` bytes of each first lane go down its chain."""
    a, b = chains[:, :-1].ravel(), chains[:, 1:].ravel()
    return Collective("broadcast", chains.shape[1], chains.shape[1] - 1, lane_flows(group, a, b, np.full(a.size, size)))


def point_to_point(group: Group, source: Lanes, destination: Lanes, size: npt.NDArray[np.int64]) -> Collective:
    """Lanes int32[F] send size int64[F] bytes to lanes int32[F], all at once."""
    return Collective("point_to_point", 2, 1, lane_flows(group, source, destination, size))


def ring_seconds(passes: int, ranks: int, size: float, bandwidth: float, alpha: float) -> float:
    """Closed form: `passes` (1, or 2 for all-reduce) over `ranks` with `size` bytes in all at `bandwidth` B/s."""
    return passes * (ranks - 1) * (alpha + size / (ranks * bandwidth))


def _ring(op: str, passes: int, group: Group, rings: Lanes, sent: npt.NDArray[np.int64]) -> Collective:
    """sent int64[G, n]: bytes from each lane to the next."""
    following, ranks = np.roll(rings, -1, axis=1), rings.shape[1]
    flows = lane_flows(group, rings.ravel(), following.ravel(), sent.ravel())
    return Collective(op, ranks, passes * (ranks - 1), flows, algorithm="ring")


def lane_flows(group: Group, source: Lanes, destination: Lanes, size: npt.NDArray[np.int64]) -> Flows:
    """Flows between lanes; nothing travels to oneself."""
    away = source != destination
    source, destination = source[away], destination[away]
    return Flows(source, group.devices[source], group.devices[destination], np.asarray(size[away], dtype=np.int64))


def _parent(rank: int, ranks: int) -> int:
    """Of a rank > 0 in the binary tree over 0 .. ranks - 1 whose odd ranks are leaves; 0 is the root."""
    bit = rank & -rank
    up = (rank ^ bit) | (bit << 1)
    return up if up < ranks else rank ^ bit
