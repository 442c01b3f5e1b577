"""All ways to deal the items of a layer to ranks, and which of them are the same up to the names of equal ranks."""

from __future__ import annotations

from math import factorial, prod

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def how_many(room: Ints) -> int:
    """int[ranks] -> ways to deal that many items: a multinomial coefficient."""
    return factorial(int(room.sum())) // prod(factorial(int(each)) for each in room)


def deals(room: Ints) -> Ints:
    """int64[ranks] -> int64[N, items]: the rank of each item in every way that fills each rank's room."""
    dealt, left = np.zeros((1, 0), dtype=np.int64), room[None].astype(np.int64)
    for _ in range(int(room.sum())):
        row, rank = np.nonzero(left)
        dealt, left = np.column_stack([dealt[row], rank]), left[row]
        left[np.arange(len(row)), rank] -= 1
    return dealt


def renamed(dealt: Ints, node_of_rank: Ints) -> tuple[Ints, Ints]:
    """int64[N, items], nodes of equally many ranks each, in order -> (the same with ranks named by first use: nodes in
    the order in which items come to them, ranks in that order within their node; int64[N, ranks] old name -> new).
    """
    ranks = len(node_of_rank)
    each = ranks // (int(node_of_rank.max()) + 1)
    first = np.stack([(dealt == rank).argmax(axis=1) for rank in range(ranks)], axis=1)  # every rank has an item
    order = np.argsort(first.reshape(len(dealt), -1, each), axis=2).argsort(axis=2)  # place within the node
    node = np.argsort(first.reshape(len(dealt), -1, each).min(axis=2), axis=1).argsort(axis=1)
    name = (node[:, :, None] * each + order).reshape(len(dealt), ranks)
    return np.take_along_axis(name, dealt, axis=1), name


def numbered(dealt: Ints, ranks: int) -> Ints:
    """int64[N, items] -> int64[N]: one number for each way (base `ranks`)."""
    return dealt @ (ranks ** np.arange(dealt.shape[1])[::-1])
