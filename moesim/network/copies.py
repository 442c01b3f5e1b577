"""Copies: how many token rows go from each source to each destination, at each level of deduplication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moesim.compiled import interpreted, njit

Matrix = npt.NDArray[np.int64]
Level = Literal["pairs", "devices", "nodes", "tokens"]


@dataclass(frozen=True)
class Copies:
    """Token counts from source lane to destination.

    pairs int64[R, R]: one per (token, chosen expert), nothing merged; devices int64[R, R]: one per (token, device that
    holds any of its experts); nodes int64[R, N]: one per (token, node that holds any). Own lane and node included.
    tokens int64[R]: tokens of each source lane, with or without experts. Several layers are one more axis before these.
    """

    pairs: Matrix
    devices: Matrix
    nodes: Matrix
    node_of_lane: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int64]


def count_copies(
    source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32], lanes: int, node_of_lane: npt.NDArray[np.int32]
) -> Copies:
    """source int32[T] lane of each token, destination int32[T, k] lanes of its experts (-1: none) -> Copies."""
    first = int(node_of_lane.min()) if lanes else 0
    local_node = (node_of_lane - first).astype(np.int32)
    nodes = int(local_node.max()) + 1
    pairs = np.zeros((lanes, lanes), dtype=np.int64)
    devices = np.zeros((lanes, lanes), dtype=np.int64)
    per_node = np.zeros((lanes, nodes), dtype=np.int64)
    count = _count_at_once if interpreted() else _count
    count(source, np.ascontiguousarray(destination), local_node, pairs, devices, per_node)
    return Copies(pairs, devices, per_node, local_node, np.bincount(source, minlength=lanes))


@njit
def _count(source: Any, destination: Any, node_of: Any, pairs: Any, devices: Any, nodes: Any) -> None:
    """One pass; `seen` remembers the last token that reached a device or node, so that its second copy is free."""
    seen_device = np.full(pairs.shape[0], -1, np.int64)
    seen_node = np.full(nodes.shape[1], -1, np.int64)
    for token in range(source.shape[0]):
        lane = source[token]
        for choice in range(destination.shape[1]):
            target = destination[token, choice]
            if target < 0:
                continue
            pairs[lane, target] += 1
            if seen_device[target] != token:
                seen_device[target] = token
                devices[lane, target] += 1
            if seen_node[node_of[target]] != token:
                seen_node[node_of[target]] = token
                nodes[lane, node_of[target]] += 1


def _count_at_once(
    source: npt.NDArray[np.int32], destination: npt.NDArray[np.int32], node_of: npt.NDArray[np.int32],
    pairs: Matrix, devices: Matrix, nodes: Matrix,
) -> None:  # fmt: skip
    """`_count` in whole-array operations, for a process in which it is not compiled."""
    token, choice = np.nonzero(destination >= 0)
    target = destination[token, choice]
    np.add.at(pairs, (source[token], target), 1)
    for counted, place in ((devices, target), (nodes, node_of[target])):
        once = np.unique(token * counted.shape[1] + place)
        np.add.at(counted, (source[once // counted.shape[1]], once % counted.shape[1]), 1)
