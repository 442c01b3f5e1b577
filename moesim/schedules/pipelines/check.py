"""An order of a pipeline does everything once. `check_orders` ships: orders of users go through it too."""

from __future__ import annotations

from collections import Counter

from moesim.errors import BadInput
from moesim.schedules.pipelines.act import Act, Orders, Pass


def check_orders(orders: Orders, micro_batches: int, stages: int) -> None:
    """Every micro-batch has, in every stage, one F and one backward: B, or D and W. Raises BadInput."""
    found = Counter(act for slots in orders for slot in slots for act in slot)
    for number in range(micro_batches):
        for stage in range(stages):
            f, b, d, w = (found.pop(Act(what, number, stage), 0) for what in Pass)
            if (f, b, d, w) not in ((1, 1, 0, 0), (1, 0, 1, 1)):
                counts = f"{f} F, {b} B, {d} D, {w} W"
                raise BadInput(
                    f"micro-batch {number} has {counts} in stage {stage}",
                    way_out="one F, and one B or one D and one W",
                )  # fmt: skip
    if found:
        raise BadInput(f"{next(iter(found))} is of no micro-batch or stage", way_out="leave it out")
