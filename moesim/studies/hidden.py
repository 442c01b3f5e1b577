"""How much of its transfers' time a GPU computes in: what Meta's Holistic Trace Analysis calls their overlap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.engine import TaskGraph, Timeline


def hidden_shares(graph: TaskGraph, timeline: Timeline) -> npt.NDArray[np.float64]:
    """float64[n] of the n ranks that take part in a transfer: of the time in which they are inside one (from their
    release until their sends and receives are done) the share in which they do something else too.
    """
    took = timeline.end > timeline.start
    rank, moves = timeline.rank[took].astype(np.int64), graph.coflow[timeline.task[took]] >= 0
    at = np.concatenate([timeline.start[took], timeline.end[took]])
    who, change = np.tile(rank, 2), np.repeat([1, -1], len(rank))
    order = np.lexsort((at, who))
    at, who, change, moves = at[order], who[order], change[order], np.tile(moves, 2)[order]
    inside, beside = (np.cumsum(np.where(mask, change, 0)) > 0 for mask in (moves, ~moves))
    spent = np.where(inside, np.diff(at, append=at[-1:]), 0)  # a rank's last event leaves nothing open
    whole, hidden = (np.bincount(who, one, minlength=graph.num_ranks) for one in (spent, np.where(beside, spent, 0)))
    return np.asarray(hidden[whole > 0] / whole[whole > 0])
