"""Three thirds of a batch, interleaved as the halves of `two_batch` are.

Two thirds compute while the rows of the other are on their way: it hides transfers that take up to twice as long as a
part computes, where halves hide what takes as long, and its GEMMs are a third of a batch tall. Source: the order of
`two_batch`, with one part more.
"""

from __future__ import annotations

from moesim.schedules.schedule import Schedule


class ThreeBatch(Schedule):
    """Kernels of transfers hold their SMs all the time: a reserved budget, idle or not."""

    name, cuts, shares_sms = "three_batch", 3, True
