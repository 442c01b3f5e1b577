"""What there is to say about replicas that died."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.errors import DoesNotFit
from moesim.serving import Served, State


def check_answered(served: Served) -> None:
    """Raises DoesNotFit where no request was answered."""
    if not served.book.count(State.FINISHED):
        raise DoesNotFit(
            f"no request is answered, {served.book.count(State.LOST)} are lost with their replicas", where="faults",
            way_out="then: retry, an end (until) to one of the outages, or more replicas",
        )  # fmt: skip


def fleet_notes(served: Served) -> Iterator[str]:
    """Counts, and what is assumed."""
    if not (fleet := served.fleet):
        return
    if fleet.scalers:
        yield (
            "autoscale: a replica that starts is paid, and serves after startup_time; one that is let go answers what "
            "it has; a new one's KV cache is empty, and pulling its weights slows nobody: assumed"
        )
    if fleet.scalers and served.entry:
        yield (
            "autoscale of pools: requests whose prompts are computed count for the pool that answers; a replica that "
            "is let go is paid until the last KV that it holds, or that is promised to it, has moved"
        )
    if not fleet.outages:
        return
    yield (
        f"{len(fleet.outages) - fleet.unplayed} times a replica died: {int((served.book.retried > 0).sum())} requests "
        f"were computed again, {served.book.count(State.LOST)} lost; the router knows at once, GPUs are paid meanwhile"
    )
    book, done = served.book, served.book.state == State.FINISHED
    if late := int(((book.state == State.LOST) & (book.sent > book.ended[done].max(initial=0))).sum()):
        yield f"faults: {late} of the lost requests came after the last answer, until which rates are told"
    if served.entry:
        yield (
            "faults of pools: KV is where its prompt was computed until all of it has landed, and leaves again for "
            "another replica where the one that waits for it dies"
        )
    if fleet.unplayed:
        yield f"{fleet.unplayed} outages begin after the last answer, and change nothing"
