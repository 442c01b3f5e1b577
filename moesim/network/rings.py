"""Ring collectives as flows, and their closed form.

Ring all-gather and reduce-scatter move (n - 1)/n of the buffer over every hop, all-reduce is one of each:
t = (n - 1)(alpha + S / (n B)) per pass. Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication
Operations in MPICH" (2005).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.network.flows import Flows, Group


def ring_pass(group: Group, width: int, shard: npt.NDArray[np.int64], *, stride: int = 1) -> Flows:
    """One pass (all-gather or reduce-scatter) in every ring of `width` lanes that lie `stride` apart.

    shard int64[R]: bytes of each lane's part. Every lane passes width - 1 parts on to the next.
    """
    lanes = np.arange(len(group.devices), dtype=np.int32)
    block = lanes // (width * stride) * (width * stride)
    following = block + (lanes - block + stride) % (width * stride)
    return Flows(lanes, group.devices, group.devices[following], shard * (width - 1))


def ring_all_reduce(group: Group, width: int, shard: npt.NDArray[np.int64], *, stride: int = 1) -> Flows:
    """Reduce-scatter and all-gather of the same buffer, as one pass of twice the bytes."""
    return ring_pass(group, width, 2 * shard, stride=stride)


def ring_seconds(passes: int, ranks: int, size: float, bandwidth: float, alpha: float) -> float:
    """Closed form: `passes` (1, or 2 for all-reduce) over `ranks` with `size` bytes in all at `bandwidth` B/s."""
    return passes * (ranks - 1) * (alpha + size / (ranks * bandwidth))
