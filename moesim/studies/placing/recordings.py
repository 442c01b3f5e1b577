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
from moesim.models import load_routed
from moesim.placement import Windows
from moesim.placement.different import clusters, one_each
from moesim.routing import RoutingTrace, read_trace
from moesim.routing.importers import REGISTRY, Options, look, read_any
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import PHASES
from moesim.studies.routing import trace_path

SUFFIXES: Final = (".npz", ".parquet", ".npy", ".json", ".jsonl", ".csv", ".safetensors")
Counts = npt.NDArray[np.int64]
Recorded = RoutingTrace | LoadRecord


@dataclass(frozen=True)
class RecordedFile:
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


def read_recorded(name: str, model: str | None = None) -> Recorded:
    """A shipped trace, or a recording in any format; `model` says of an engine's file what it does not say itself.
    Raises BadInput.
    """
    if not Path(name).exists():
        return read_trace(trace_path(name))
    form = look(Path(name))
    named = load_routed(model) if model is not None and form in REGISTRY else None
    return read_any(Path(name), Options(named))[0]


def paths_of(text: str) -> tuple[str, ...]:
    """ "a,b,c" or a folder -> names of recordings. Raises BadInput for a folder without any."""
    found: list[str] = []
    for part in text.split(","):
        folder = Path(part)
        if folder.is_dir() and not _one(folder):
            inside = sorted(str(path) for path in folder.iterdir() if path.suffix in SUFFIXES or _one(path))
            if not inside:
                raise BadInput("holds no recording", where=part, way_out=f"files {' or '.join(SUFFIXES)}")
            found += inside
        elif part:
            found.append(part)
    if len(set(found)) != len(found):
        raise BadInput("names a recording twice", where="--trace", way_out="each once")
    if not found:
        raise BadInput("names no recording", where="--trace", way_out="`moesim list` has the shipped ones, or a file")
    return tuple(found)


def _one(folder: Path) -> bool:
    """Whether a folder is one recording."""
    return any((folder / name).exists() for name in ("meta_info.json",)) or any(folder.glob("layer_*.parquet"))


def recordings(names: Sequence[str], model: str | None = None) -> tuple[RecordedFile, ...]:
    """Read and compared; equal shapes. Raises BadInput."""
    read = [RecordedFile(name, read_recorded(name, model)) for name in names]
    first = read[0].recorded.header
    for one in read[1:]:
        header = one.recorded.header
        if (header.moe_layers, header.num_experts) != (first.moe_layers, first.num_experts):
            raise BadInput(
                f"has {header.moe_layers} layers of {header.num_experts} experts, {names[0]} {first.moe_layers} of "
                f"{first.num_experts}",
                where=one.name,
                way_out=f"recordings of one model: leave it or {names[0]} out",
            )
        if isinstance(one.recorded, LoadRecord) != isinstance(read[0].recorded, LoadRecord):
            raise BadInput("counts and tokens do not go together", where=one.name, way_out="recordings of one kind")
    for one in read:
        if not one.load.any():
            raise BadInput("all counts are 0", where=one.name, way_out="record while the engine serves requests")
    kin = clusters([one.load for one in read])
    return tuple(RecordedFile(one.name, one.recorded, number) for one, number in zip(read, kin, strict=True))


def joined(chosen: Sequence[RecordedFile], window: int, name: str = "recordings") -> Windows:
    """All as one Windows, every different load with the same weight. Raises BadInput."""
    if all(isinstance(one.recorded, LoadRecord) for one in chosen):
        return Windows(name, one_each([one.load for one in chosen], [one.kin for one in chosen]), group=_groups(chosen))
    return _tokens(chosen, window, name)


def _groups(chosen: Sequence[RecordedFile]) -> Counts:
    return np.arange(len({one.kin for one in chosen}), dtype=np.int64)


def _tokens(chosen: Sequence[RecordedFile], window: int, name: str) -> Windows:
    """Equally many windows of each different load, from its recordings in turn."""
    traces = [one.recorded for one in chosen if isinstance(one.recorded, RoutingTrace)]
    widths = {trace.header.top_k for trace in traces}
    if len(widths) > 1:
        told = ", ".join(f"{one.name}: {trace.header.top_k}" for trace, one in zip(traces, chosen, strict=True))
        way_out = "recordings of one model with one top-k"
        raise BadInput(f"the recordings take different numbers of experts ({told})", where=name, way_out=way_out)
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
