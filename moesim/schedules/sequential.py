"""One batch, one layer after the other: every all-to-all that has nothing beside it is exposed."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.schedules.verbs import Step, Verb


def order(layers: int) -> Iterator[Step]:
    """Steps of `layers` layers; the shared expert follows the dispatch, so it can hide behind it."""
    for layer in range(layers):
        for verb in Verb:
            yield Step(verb, layer, 0)
