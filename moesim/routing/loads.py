"""LoadRecord: counts of tokens per expert where a recorder kept no tokens; enough for balance and placement.

Counts give no deduplication and no affinity; counts by source rank add the traffic matrix without deduplication.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim import atomic, foreign
from moesim.errors import BadInput
from moesim.routing.arrays import read_npz, write_npz
from moesim.routing.stats.load import step_labels
from moesim.routing.trace import RoutingTrace, TraceHeader

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LoadRecord:
    """counts int64[S, L, E] choices per step; by_source int64[S, R, L, E] of each source rank, or None.

    layer_ids [L] are model layer numbers and `total_layers` counts dense ones too. Raises BadInput for negative counts.
    """

    header: TraceHeader
    counts: Counts
    layer_ids: tuple[int, ...]
    total_layers: int
    by_source: Counts | None = None

    def __post_init__(self) -> None:
        shape = (self.header.moe_layers, self.header.num_experts)
        if self.counts.ndim != 3 or self.counts.shape[1:] != shape or not self.counts.size:
            raise BadInput(
                f"counts {self.counts.shape} are not [steps, {shape[0]}, {shape[1]}]", where=self.header.origin
            )
        if self.counts.dtype.kind not in "iu":
            raise BadInput(f"counts are {self.counts.dtype}, not whole numbers", where=self.header.origin)
        if (self.counts < 0).any():
            step, layer, expert = np.argwhere(self.counts < 0)[0]
            raise BadInput(
                f"step {step}, layer {layer}: expert {expert} has a negative count", where=self.header.origin
            )
        if self.by_source is not None and not np.array_equal(self.by_source.sum(axis=1), self.counts):
            raise BadInput("the counts by source rank do not add up to the counts", where=self.header.origin)


def loads_of(trace: RoutingTrace) -> LoadRecord:
    """The counts of a trace, step by step and by source rank."""
    label, steps = step_labels(trace)
    ranks, source = np.unique(trace.source_rank, return_inverse=True)
    layers, experts = trace.header.moe_layers, trace.header.num_experts
    table = np.empty((steps, len(ranks), layers, experts), dtype=np.int64)
    first = (label * len(ranks) + source) * (experts + 1)
    for layer in range(layers):
        cell = first[:, None] + np.minimum(trace.expert[:, layer], experts)
        counts = np.bincount(cell.ravel(), minlength=steps * len(ranks) * (experts + 1))
        table[:, :, layer] = counts.reshape(steps, len(ranks), experts + 1)[..., :experts]
    return LoadRecord(trace.header, table.sum(axis=1), tuple(range(layers)), layers, table)


def write_loads(record: LoadRecord, path: Path) -> None:
    """An npz with the counts and the header, whole or not at all."""
    facts = {**asdict(record.header), "layer_ids": record.layer_ids, "total_layers": record.total_layers}
    text = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8)
    arrays: dict[str, npt.NDArray[Any]] = {"header": text, "counts": record.counts}
    arrays |= {} if record.by_source is None else {"by_source": record.by_source}
    stream = io.BytesIO()
    write_npz(stream, **arrays)
    atomic.write(path, stream.getvalue())


def is_loads(names: Collection[str]) -> bool:
    """Whether an npz with arrays of these names is one that `write_loads` made."""
    return {"header", "counts"} <= set(names)


def read_loads(path: Path) -> LoadRecord:
    """The inverse. Raises BadInput."""
    arrays = read_npz(path, (), ("header", "counts", "by_source"))
    if not is_loads(arrays):
        way_out = f"if an engine wrote it, moesim trace import FORMAT {path} -o FILE.npz (moesim trace formats)"
        raise BadInput("is no record of counts that moesim wrote", where=path, way_out=way_out)
    try:
        facts = json.loads(arrays["header"].tobytes())
        layers, total = tuple(map(int, facts.pop("layer_ids"))), int(facts.pop("total_layers"))
        header = TraceHeader(**{**facts, "domains": tuple(facts["domains"])})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"has no load record's header ({error})", where=path) from None
    with foreign.reading(path, "record of counts"):
        return LoadRecord(header, arrays["counts"], layers, total, arrays.get("by_source"))
