"""A played pipeline as text: a line a rank, a column a unit of time."""

from __future__ import annotations

from moesim.schedules.pipelines.act import Pass, Slot
from moesim.schedules.pipelines.clock import Played

WIDEST = 160  # columns: what wide terminals have; longer ones are drawn coarser


def draw(played: Played) -> str:
    """Digits are forwards of a micro-batch (its number modulo 10), small letters the backwards of micro-batch a, b ...,
    w gradients of weights, # a forward and a backward at once, . waiting.
    """
    unit = max(-(-played.makespan // WIDEST), 1)
    width = -(-played.makespan // unit)
    lines = []
    for rank, slots in enumerate(played.orders):
        cells = ["."] * width
        for slot, start, end in zip(slots, played.start[rank], played.end[rank], strict=True):
            for column in range(start // unit, -(-end // unit)):
                cells[column] = _letter(slot)
        lines.append(f"rank {rank:>3} |{''.join(cells)}|")
    return "\n".join(lines)


def _letter(slot: Slot) -> str:
    if len(slot) > 1:
        return "#"
    what, number, _ = slot[0]
    if what == Pass.W:
        return "w"
    return str(number % 10) if what == Pass.F else "abcdefghijklmnopqrstuv"[number % 22]
