"""A narrower dtype that is slower: what its kernel takes in the step that is played, beside the wider one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from moesim.costs.profile import PICKED, UNMEASURED
from moesim.errors import BadInput
from moesim.step import Batch, CostLog, LayerOps, StepPlan
from moesim.step.work import Work

WIDE = "bf16"
SLOWER = 1.02


def narrow_notes(plan: StepPlan, batch: Batch) -> Iterator[str]:
    """One sentence for each of KV cache, weights and experts whose dtype was chosen narrower than bf16 and whose kernel
    is slower for it, on the first batch.
    """
    rows = _even_rows(plan, batch)
    asks: dict[str, tuple[str, Callable[[LayerOps], Work]]] = {
        "kv_cache": ("attention core", lambda ops: ops.core(batch)),
        "weights": ("attention projections", lambda ops: ops.attention(batch)),
        "experts": ("experts", lambda ops: ops.experts(rows, batch.training)),
    }
    for key, (what, ask) in asks.items():
        narrow = getattr(plan.ops.precision, key)
        if narrow == WIDE or batch.training or (key == "experts" and not plan.model.routed):
            continue
        seconds, kernels = _asked(plan.ops, ask)
        try:
            wider, others = _asked(replace(plan.ops, precision=replace(plan.ops.precision, **{key: WIDE})), ask)
        except BadInput:
            continue  # a kernel set without that dtype has nothing to compare with, nor has one that nobody measured
        if kernels and seconds > SLOWER * wider and not others & {UNMEASURED, PICKED}:
            yield (
                f"{key} {narrow} is slower than {WIDE}: the {what} take {seconds / wider:.2f} times as long "
                f"({', '.join(sorted(kernels - others))} against {', '.join(sorted(others - kernels))})"
            )


def _asked(ops: LayerOps, ask: Callable[[LayerOps], Work]) -> tuple[float, set[str]]:
    """Seconds of the slowest rank, and the kernels that answered."""
    log = CostLog()
    total = ask(replace(ops, log=log)).total
    return float(np.max(total)), set(log.kernels.values())


def _even_rows(plan: StepPlan, batch: Batch) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """int64[1, slots of a rank]: rows of each slot of one rank, where all experts get as many."""
    slots = max(plan.placement.num_slots, 1)
    own = max(slots // plan.layout.expert_parallel, 1)
    total = int(batch.tokens_of_rank.sum()) * plan.model.top_k * plan.layout.expert_parallel // plan.layout.world
    return np.full((1, own), -(-total // slots), dtype=np.int64)
