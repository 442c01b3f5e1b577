"""Runs of candidates, by way of a sweep's store: what was run before is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moesim.studies.recommending.space import Candidate
from moesim.studies.sweeping.axes import Axis
from moesim.studies.sweeping.executor import Executor
from moesim.studies.sweeping.plan import Plan
from moesim.studies.sweeping.subject import Subject
from moesim.studies.sweeping.sweep import FOLDER, OK, Tell, sweep

Metrics = Mapping[str, Mapping[str, Any]]


@dataclass
class Runs:
    """kept: metrics by number of the candidate, None of a failed run; reasons: its exit code and why; folder: store."""

    subject: Subject
    candidates: Sequence[Candidate]
    seed: int
    executor: Executor
    where: Path | None
    pace: Tell
    kept: dict[int, Metrics | None] = field(default_factory=dict)
    reasons: dict[int, tuple[int, str]] = field(default_factory=dict)
    folder: Path = FOLDER

    def __call__(self, rows: Sequence[int]) -> dict[int, Metrics | None]:
        """Of candidates by number. Candidates with the same keys are one sweep. Raises BadInput, TryAgain."""
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for row in rows:
            groups[tuple(self.candidates[row].keys)].append(row)
        for keys, some in groups.items():
            self._play(keys, some)
        return {row: self.kept[row] for row in rows}

    def _play(self, keys: Sequence[str], rows: Sequence[int]) -> None:
        values = tuple(tuple(self.candidates[row].keys.values()) for row in rows)
        axes = tuple(Axis(key, ()) for key in keys)
        found = sweep(Plan(self.subject, axes, seed=self.seed, listed=values), executor=self.executor,
                      folder=self.where, tell=self.pace)  # fmt: skip
        self.folder = found.folder
        for row, kept in zip(rows, found.kept, strict=True):
            self.kept[row] = kept.record["metrics"] if kept.code == OK else None
            if kept.code != OK:
                self.reasons[row] = (kept.code, str(kept.record["reason"]))
