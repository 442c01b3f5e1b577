"""Pace: how long steps of a plan take, batch after batch: the clock that loops ask.

The part of a step that its routing decides (rows of experts, bytes and start-ups of exchanges) may be kept and used for
W batches of the same shape, and is then looked up anew: routing differs less from one batch to the next of its shape
than prices do, and looking it up costs most. What else a step costs is always the batch's own. W = 1 looks up always.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from moesim.step.batch import Batch, Phase
from moesim.step.fill import NOTHING, Int64s, Refill, Routed
from moesim.step.plan import StepPlan

OCTAVE = 32  # buckets of batches of like numbers of tokens: 2 % wide
SHAPE = "shape"
FEWEST, MOST = 3, 4096  # steps played at once: below it costs more than it saves, above it memory
Shape = tuple[int, ...]


@dataclass
class Renewals:
    """steps: batches paced, of which a step has two where prompts are slowed beside decodes; lookups made; corrections:
    by what share a renewal changed its step, up or down, added up.
    """

    steps: int = 0
    lookups: int = 0
    renewed: int = 0
    corrections: float = 0.0

    @property
    def mean_correction(self) -> float:
        """Share of a step by which its time was off before a renewal."""
        return self.corrections / max(self.renewed, 1)


@dataclass
class Kept:
    """A looked up routing (None where steps are sums, which do without): uses so far, ps of the step it was looked up
    for, and of what no routing decides of that.
    """

    routed: Routed | None
    uses: int
    step: int
    unrouted: int


@dataclass
class Pace:
    """Batches of `plan` -> ps. `renew_every` W: uses of a looked up routing by batches of its shape.

    Where a step is a sum (`Refill.sums`), a batch that uses a kept routing takes as long as the one it was looked up
    for, longer or shorter by what differs in the rest; else the step is played with the kept routing.
    """

    plan: StepPlan
    renew_every: int = 1
    counted: Renewals = field(default_factory=Renewals)

    def __post_init__(self) -> None:
        self.refill = Refill(self.plan)
        self.kept: dict[Shape, Kept] = {}

    def ps(self, batch: Batch) -> int:
        """Ticks of the step, until its last task ends; ranks without rows get dummy ones. Raises what `Refill` does."""
        self.counted.steps += 1
        batch = batch.padded(self.plan.schedule.most_cuts)
        if self.renew_every == 1:
            self.counted.lookups += 1
            return self._play(batch, self.refill.route(batch))
        shape = self.shape(batch)
        kept = self.kept.get(shape)
        if kept is not None and kept.uses < self.renew_every:
            kept.uses += 1
            return self._with(kept, batch)
        return self._renewed(batch, shape, kept)

    def unrouted(self, batch: Batch) -> int:
        """Ticks of what no routing decides, on the rank that needs longest for it. Only where a step is a sum."""
        return self.refill.unrouted(batch.padded(self.plan.schedule.most_cuts))

    def ends(
        self, batch: Batch, grows: npt.NDArray[np.bool_], now: int, horizon: int, most: int, least: int = 0
    ) -> Int64s:  # fmt: skip
        """int64[n] ps: ends of this batch's step, which begins at `now`, and of those after it that begin before
        `horizon`, `most` in all; rows of `grows` [S] are a token longer in each. None takes less than `least`.

        Decodes whose routing is kept, where a step is a sum, are played in one call; it is what `ps` says of each.
        """
        found, left = [], most
        while True:
            ends = self._at_once(batch, now, horizon, left, least)
            if not len(ends):
                ends = np.array([now + max(self.ps(batch), least)])
            found.append(ends)
            now, left = int(ends[-1]), left - len(ends)
            if not left or now >= horizon:
                return found[0] if len(found) == 1 else np.concatenate(found)
            batch = batch.onward(grows * len(ends))

    def _at_once(self, batch: Batch, now: int, horizon: int, most: int, least: int) -> Int64s:
        """Ends of as many steps as one call can tell, none where that is not worth it, or not known."""
        if (
            most < FEWEST
            or self.renew_every == 1
            or not self.refill.sums
            or len(batch.padded(1).rank) > len(batch.rank)
        ):
            return NOTHING
        kept = self.kept.get(self.shape(batch))
        if kept is None:
            return NOTHING
        likely = (horizon - now) // max(kept.step, least, 1) + 2
        steps = min(most, self.renew_every - kept.uses, likely, MOST)
        if steps < FEWEST:
            return NOTHING
        unrouted, cores = self.refill.ahead(batch, steps)
        ends = now + np.cumsum(np.maximum(kept.step + unrouted - kept.unrouted, least))
        ends = ends[: 1 + int(np.searchsorted(ends[:-1], horizon))]
        for one in cores:
            one.count(len(ends))
        kept.uses += len(ends)
        self.counted.steps += len(ends)
        return ends

    def shape(self, batch: Batch) -> Shape:
        """Of a padded batch: others of the same may have its routing."""
        if SHAPE not in batch.memo:
            batch.memo[SHAPE] = shape_of(batch, where=not self.refill.sums)
        shape: Shape = batch.memo[SHAPE]
        return shape

    def _renewed(self, batch: Batch, shape: Shape, old: Kept | None) -> int:
        fresh = self.refill.route(batch)
        self.counted.lookups += 1
        ticks = self._play(batch, fresh)
        sums = self.refill.sums
        unrouted = self.refill.unrouted(batch) if sums else 0
        self.kept[shape] = Kept(None if sums else fresh, 1, ticks, unrouted)
        if old is not None:
            before = self._play(batch, old.routed) if old.routed else old.step + unrouted - old.unrouted
            self.counted.renewed += 1
            self.counted.corrections += abs(before / max(ticks, 1) - 1)
        return ticks

    def _with(self, kept: Kept, batch: Batch) -> int:
        if kept.routed:
            return self._play(batch, kept.routed)
        return kept.step + self.refill.unrouted(batch) - kept.unrouted

    def _play(self, batch: Batch, routed: Routed) -> int:
        return self.refill.play(self.refill.fill(batch, routed))


def shape_of(batch: Batch, *, where: bool = True) -> Shape:
    """Batches that may share a routing: tokens within an OCTAVE-th of an octave, those of prompts on each rank too, as
    their rows leave from there: without it TTFT was 9 % short in the shipped serving scenario on two replicas. Without
    `where` it does not matter which ranks they are.
    """
    prompts = batch.phase == Phase.PREFILL
    of_rank = np.bincount(batch.rank[prompts], weights=batch.query[prompts], minlength=batch.ranks)
    return (*buckets(of_rank if where else np.sort(of_rank)).tolist(), *buckets([batch.tokens]).tolist())


def buckets(tokens: npt.ArrayLike) -> Int64s:
    """Of numbers of tokens."""
    return np.asarray(np.round(OCTAVE * np.log2(np.maximum(tokens, 1))), dtype=np.int64)
