"""Clusters of items of even load, and the assignment of one layer's clusters to ranks when its neighbour stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy

from moesim.placement.chain import Chain

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def balanced(load: Floats, room: Ints, cap: Floats) -> Ints:
    """load float64[layers, S], room int64[ranks], cap float64[layers, ranks] -> int64[layers, S]: heaviest first, each
    item to the rank that is then least full (longest processing time first, Graham 1969), with room for it.
    """
    layers, ranks = np.arange(len(load)), len(room)
    weight = np.where(np.isfinite(cap), cap, 1.0)
    filled, count = np.zeros((len(load), ranks)), np.zeros((len(load), ranks), dtype=np.int64)
    result = np.empty(load.shape, dtype=np.int64)
    for item in np.argsort(-load, axis=1, kind="stable").T:
        after = (filled + load[layers, item][:, None]) / weight
        chosen = np.where(count < room, after, np.inf).argmin(axis=1)
        result[layers, item] = chosen
        filled[layers, chosen] += load[layers, item]
        count[layers, chosen] += 1
    return result


def aligned(chain: Chain, cluster: Ints) -> Ints:
    """int64[layers, S] cluster -> rank of each item: layer by layer, clusters go where the moves from the layer before
    cost least (Hungarian method). Where all ranks are equally far apart the cost of two layers depends only on how they
    are labelled relative to each other, so this is the best labelling of the whole chain.
    """
    rank = cluster.copy()
    for layer in range(1, len(rank)):
        cost = chain.flow[layer - 1].T @ chain.distance[rank[layer - 1]]
        rank[layer] = _best_names(chain, layer, cost, cluster[layer])[cluster[layer]]
    return rank


def _best_names(chain: Chain, layer: int, cost: npt.NDArray[np.float32], cluster: Ints) -> Ints:
    """int64[ranks]: the rank of each cluster; a cluster keeps to ranks with as many slots and room for its load."""
    ranks = len(chain.room)
    table = np.zeros((ranks, ranks))
    np.add.at(table, cluster, cost)
    held = np.bincount(cluster, chain.load[layer], ranks)
    fits = (chain.room[:, None] == chain.room) & (held[:, None] <= chain.cap[layer] * (1 + 1e-12))
    fits |= np.eye(ranks, dtype=bool)
    table[~fits] = table.sum() + 1.0
    row, column = scipy.optimize.linear_sum_assignment(table)
    names = np.empty(ranks, dtype=np.int64)
    names[row] = column
    return names
