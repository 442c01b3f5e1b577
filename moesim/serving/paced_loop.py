"""PacedLoop: a compiled loop that asks a Pace only for what it has not asked before.

A step whose routing is kept, and whose rows are of lengths that were priced before, is priced by compiled code; any
other by `Pace.ps`, so that routings are looked up, renewed and counted, and prices learned, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.serving.book import Book
from moesim.serving.clock import Hosted
from moesim.serving.compiled_loop import CompiledLoop
from moesim.serving.loop_blocks import OFFERED
from moesim.serving.loop_paced import Keeps, hash_of, paced, priced
from moesim.serving.loop_queue import PENDING, SEEN
from moesim.serving.replica import Replica
from moesim.serving.requests import Ints
from moesim.step.pace import Pace, Shape, buckets
from moesim.step.rates import RateBook, free, slot, unrated

FEWEST = 1 << 8
NEXT = 1 << 9  # requests whose prompts are priced together
MOST_TOKENS = 1 << 20  # of a step, beyond which a Pace is asked


def paced_clock(replicas: Sequence[Replica]) -> tuple[Hosted, Pace] | None:
    """Of a system whose steps compiled code may price, and the Pace behind it."""
    clock = replicas[0].clock
    if not isinstance(clock, Hosted) or not isinstance(clock.clock, Pace) or replicas[0].ways > 1:
        return None
    pace = clock.clock
    return (clock, pace) if pace.renew_every > 1 and not unrated(pace.refill) else None


class PacedLoop(CompiledLoop):
    """See CompiledLoop; steps take what `hosted`, of `pace`, says."""

    def __init__(
        self, book: Book, replicas: Sequence[Replica], balancer: str, front: int, seed: int, hosted: Hosted, pace: Pace
    ) -> None:  # fmt: skip
        super().__init__(book, replicas, balancer, front, seed)
        self._hosted, self._pace, self._rates = hosted, pace, RateBook(pace.refill)
        self._shapes: dict[Shape, int] = {}  # where each stands
        self._seen = 0  # requests whose prompts were priced
        ranks, most = self._engine.many, min(self._engine.many * self._engine.budget, MOST_TOKENS)
        columns = [np.zeros(FEWEST, dtype=np.int64) for _ in range(4)]
        hashes, (step, unrouted, uses) = columns[0], columns[1:]
        self._keeps = Keeps(
            hashes, np.zeros((FEWEST, ranks + 1), dtype=np.int64), step, unrouted, uses, buckets(np.arange(most + 1)),
            pace.renew_every, np.zeros((2, 2), dtype=np.int64), np.zeros(1, dtype=np.int64),
            np.zeros(ranks + 1, dtype=np.int64), np.zeros(ranks, dtype=np.int64),
        )  # fmt: skip

    def serve(self) -> dict[int, str]:
        """See CompiledLoop; the Pace has counted all steps."""
        rejected = super().serve()
        for shape, place in self._shapes.items():
            self._pace.kept[shape].uses = int(self._keeps.uses[place])
        self._pace.counted.steps += int(self._keeps.steps[0])
        self._rates.count(*self._keeps.counted[0].tolist())
        return rejected

    def _advance(self) -> int:
        return int(paced(self._columns, self._engine, self._rates.rates, self._keeps))

    def _price(self) -> None:
        """By the Pace, of one step; what it has learned is then known."""
        replica = int(self._columns.clock[PENDING])
        batch = self._batch(replica)
        asked = self._hosted.asked(batch)
        for shape in map(self._pace.shape, asked):
            if shape in self._shapes:
                self._pace.kept[shape].uses = int(self._keeps.uses[self._shapes[shape]])
        took = self._hosted.kernels(batch)
        for one in asked:
            self._rates.take(one)
            self._keep(self._pace.shape(one))
        self._look_ahead()
        priced(self._columns, self._engine, replica, took)

    def _look_ahead(self) -> None:
        """Prompts that come next are priced all at once, as a rank has them alone: whole, and but for what may be found
        of them.
        """
        first = int(self._columns.clock[SEEN])
        if first < self._seen:
            return
        self._seen = first + NEXT
        which = slice(first, self._seen)
        prompt, size = self._book.prompt[which], self._engine.size
        found = np.minimum(self._columns.has[which, OFFERED], (prompt - 1) // size) * size
        shapes = [
            np.stack((np.ones_like(prompt), np.minimum(prompt - before, self._engine.budget), before), axis=1)
            for before in (np.zeros_like(found), found)
        ]
        self._rates.take_prompts(np.concatenate(shapes))

    def _keep(self, shape: Shape) -> None:
        """What the Pace keeps of a shape."""
        keeps, key = self._keeps, int(hash_of(np.array(shape, dtype=np.int64)))
        if 2 * (len(self._shapes) + 1) > len(keeps.hashes):
            keeps = self._wider()
        place = _place(keeps.hashes, key)
        if keeps.hashes[place] and tuple(keeps.shapes[place].tolist()) != shape:
            return  # two shapes with one hash: the Pace is asked for the second, always
        kept = self._pace.kept[shape]
        self._shapes[shape] = place
        keeps.hashes[place], keeps.shapes[place] = key, shape
        keeps.step[place], keeps.unrouted[place], keeps.uses[place] = kept.step, kept.unrouted, kept.uses

    def _wider(self) -> Keeps:
        """Twice the room for shapes."""
        old, room = self._keeps, 2 * len(self._keeps.hashes)
        names = ("hashes", "shapes", "step", "unrouted", "uses")
        wider = {name: np.zeros((room, *getattr(old, name).shape[1:]), dtype=np.int64) for name in names}
        for shape, before in self._shapes.items():
            place = self._shapes[shape] = _place(wider["hashes"], int(old.hashes[before]))
            for name in names:
                wider[name][place] = getattr(old, name)[before]
        self._keeps = old._replace(
            hashes=wider["hashes"], shapes=wider["shapes"], step=wider["step"], unrouted=wider["unrouted"],
            uses=wider["uses"],
        )  # fmt: skip
        return self._keeps


def _place(hashes: Ints, key: int) -> int:
    """Where a key stands, or would."""
    if (found := int(slot(hashes, key))) >= 0:
        return found
    return int(free(hashes, key))
