"""Two halves of a batch, interleaved so that one computes while the other communicates.

Source: the order described for SGLang's two-batch overlap (LMSYS blog, 2025-05-05) and DeepSeek's profile-data: the
attention of one half covers the all-to-all of the other, and so do its experts. Compute runs A0 B0 | shared A, experts
A, shared B, experts B | A1 B1 ...; the network runs dispatch A, dispatch B, combine A, combine B.
"""

from __future__ import annotations

from moesim.schedules.schedule import Schedule


class TwoBatch(Schedule):
    """Kernels of transfers hold their SMs all the time: a reserved budget, idle or not."""

    name, cuts, shares_sms = "two_batch", 2, True
