"""One batch, one layer after the other: every all-to-all that has nothing beside it is exposed."""

from __future__ import annotations

from moesim.schedules.schedule import Schedule


class Sequential(Schedule):
    """The shared expert follows the dispatch on its stream's side, so it can hide behind it."""

    name = "sequential"
