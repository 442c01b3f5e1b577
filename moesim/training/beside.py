"""Slots whose passes overlap, with even rows: played task by task as those with rows of their own are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moesim.errors import BadInput
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.schedules.pipelines import Slot
from moesim.training.job import Job
from moesim.training.passes import stage_kind
from moesim.training.routed import RoutedJob


def overlapped_ps(job: Job) -> Mapping[Slot, int] | None:
    """Picoseconds of each such slot; None where the job has some that are not played so, or no experts."""
    slots = [slot for order in job.schedule.orders for slot in order if len(slot) > 1]
    if not slots:
        return {}
    if not job.model.routed:
        return None
    try:
        whole = RoutedJob(job, Sequences(Balanced(job.model), 1))
    except BadInput:
        return None
    known, found = dict[tuple[object, ...], int](), dict[Slot, int]()
    for slot in slots:
        key = tuple((stage_kind(job.model, job.stages[act.stage]), act.what) for act in slot)
        if key not in known:
            rows = [(whole.rows(job.stages[act.stage], 0, np.array([act.micro_batch])), 0) for act in slot]
            begin = np.zeros(whole.island.world, dtype=np.int64)
            known[key] = int(whole.pattern(slot).play(rows, begin).end.max())
        found[slot] = known[key]
    return found
