"""Two halves of a batch, interleaved so that one computes while the other communicates.

Source: the order described for SGLang's two-batch overlap (LMSYS blog, 2025-05-05) and DeepSeek's profile-data: the
attention of one half covers the all-to-all of the other, and so do its experts.
"""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.verbs import Step, Verb


def order(layers: int) -> Iterator[Step]:
    """Steps of `layers` layers for halves 0 and 1, half 1 one phase behind half 0.

    Compute runs A0 B0 | shared A, experts A, shared B, experts B | A1 B1 ...; the network runs dispatch A, dispatch B,
    combine A, combine B: each transfer of a half stands beside a computation of the other.
    """
    for layer in range(layers):
        for half in (0, 1):
            yield Step(Verb.ATTENTION, layer, half)
            yield Step(Verb.DISPATCH, layer, half)
        for half in (0, 1):
            yield Step(Verb.SHARED, layer, half)
            yield Step(Verb.EXPERTS, layer, half)
            yield Step(Verb.COMBINE, layer, half)
