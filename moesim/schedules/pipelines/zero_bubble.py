"""What zero-bubble pipelines share: gradients of weights are put off to where a rank would wait."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.pipelines.act import Pass, Slot
from moesim.schedules.pipelines.pipeline import one


def put_off(rank: int, micro_batches: int, ahead: int, delay: int) -> Iterator[Slot]:
    """`ahead` forwards before the first backward; each W comes `delay` input gradients after its own."""
    ahead = min(ahead, micro_batches)
    yield from (one(Pass.F, number, rank) for number in range(ahead))
    for number in range(micro_batches):
        if number + ahead < micro_batches:
            yield one(Pass.F, number + ahead, rank)
        yield one(Pass.D, number, rank)
        if number >= delay:
            yield one(Pass.W, number - delay, rank)
    yield from (one(Pass.W, number, rank) for number in range(max(micro_batches - delay, 0), micro_batches))
