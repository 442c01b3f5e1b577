"""Several recordings of one model: read, near copies found, joined so that each different load weighs as much.

A recording is a window, or equally many windows of its tokens where all have tokens. Near copies (see
`placement.different`) together weigh as one, and when one of them is held out the others are too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.placement import Windows
from moesim.placement.different import clusters, one_each
from moesim.routing import RoutingTrace, read_trace
from moesim.routing.loads import LoadRecord, read_loads
from moesim.routing.trace import PHASES
from moesim.studies.routing import trace_path

SUFFIXES: Final = (".npz", ".parquet")
Counts = npt.NDArray[np.int64]
Recorded = RoutingTrace | LoadRecord


@dataclass(frozen=True)
class Recording:
    """One recording under the name of its file. kin: number of the different load that it is of."""

    name: str
    recorded: Recorded
    kin: int = 0

    @property
    def load(self) -> Counts:
        """int64[layers, experts]: choices, in all."""
        if isinstance(self.recorded, LoadRecord):
            total: Counts = self.recorded.counts.sum(axis=0)
            return total
        return self.recorded.counts()

    @property
    def phases(self) -> str:
        """ "decode", or "unknown" for counts."""
        if isinstance(self.recorded, LoadRecord):
            return "phase unknown"
        return "+".join(PHASES[number] for number in np.unique(self.recorded.phase))


def read_recorded(name: str) -> Recorded:
    """A trace, or counts in an .npz. Raises BadInput."""
    return read_loads(Path(name)) if Path(name).suffix == ".npz" else read_trace(trace_path(name))


def paths_of(text: str) -> tuple[str, ...]:
    """ "a,b,c" or a folder -> names of recordings. Raises BadInput for a folder without any."""
    found: list[str] = []
    for part in text.split(","):
        folder = Path(part)
        if folder.is_dir():
            inside = sorted(str(path) for path in folder.iterdir() if path.suffix in SUFFIXES)
            if not inside:
                raise BadInput("holds no recording", where=part, way_out=f"files {' or '.join(SUFFIXES)}")
            found += inside
        elif part:
            found.append(part)
    if len(set(found)) != len(found):
        raise BadInput("names a recording twice", where="--trace")
    if not found:
        raise BadInput("names no recording", where="--trace")
    return tuple(found)


def recordings(names: Sequence[str]) -> tuple[Recording, ...]:
    """Read and compared; equal shapes. Raises BadInput."""
    read = [Recording(name, read_recorded(name)) for name in names]
    first = read[0].recorded.header
    for one in read[1:]:
        header = one.recorded.header
        if (header.moe_layers, header.num_experts) != (first.moe_layers, first.num_experts):
            raise BadInput(
                f"has {header.moe_layers} layers of {header.num_experts} experts, {names[0]} {first.moe_layers} of "
                f"{first.num_experts}",
                where=one.name,
            )
        if isinstance(one.recorded, LoadRecord) != isinstance(read[0].recorded, LoadRecord):
            raise BadInput("counts and tokens do not go together", where=one.name, way_out="recordings of one kind")
    for one in read:
        if not one.load.any():
            raise BadInput("all counts are 0", where=one.name, way_out="record while the engine serves requests")
    kin = clusters([one.load for one in read])
    return tuple(Recording(one.name, one.recorded, number) for one, number in zip(read, kin, strict=True))


def joined(chosen: Sequence[Recording], window: int, name: str = "recordings") -> Windows:
    """All as one Windows, every different load with the same weight. Raises BadInput."""
    if all(isinstance(one.recorded, LoadRecord) for one in chosen):
        return Windows(name, one_each([one.load for one in chosen], [one.kin for one in chosen]), group=_groups(chosen))
    return _tokens(chosen, window, name)


def _groups(chosen: Sequence[Recording]) -> Counts:
    return np.arange(len({one.kin for one in chosen}), dtype=np.int64)


def _tokens(chosen: Sequence[Recording], window: int, name: str) -> Windows:
    """Equally many windows of each different load, from its recordings in turn."""
    traces = [one.recorded for one in chosen if isinstance(one.recorded, RoutingTrace)]
    widths = {trace.header.top_k for trace in traces}
    if len(widths) > 1:
        raise BadInput("the recordings take different numbers of experts", where=name)
    members = {kin: [t for t, one in zip(traces, chosen, strict=True) if one.kin == kin] for kin in
               dict.fromkeys(one.kin for one in chosen)}  # fmt: skip
    fewest = min(sum(trace.tokens for trace in group) for group in members.values())
    count = max(fewest // window, 1)
    parts, group = [], []
    for number, same in enumerate(members.values()):
        tokens = np.concatenate([trace.expert.transpose(1, 0, 2) for trace in same], axis=1)
        parts.append(Windows.of_tokens(name, tokens, traces[0].header.num_experts, -(-tokens.shape[1] // count)))
        group += [number] * parts[-1].num_windows
    return Windows.joined(name, parts, np.array(group))
