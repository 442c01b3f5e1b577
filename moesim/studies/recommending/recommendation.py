"""Recommendation: what was simulated, what of it nothing beats, and what is to be said about the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moesim.studies.recommending.space import Candidate
from moesim.studies.shown import Rows, Tabular
from moesim.version import __version__


@dataclass(frozen=True)
class Row:
    """A candidate that was simulated: what it is compared by, and whether it meets all limits. front: its place."""

    candidate: Candidate
    found: Mapping[str, float]
    metrics: Mapping[str, Mapping[str, Any]]
    meets: bool
    front: int | None = None
    file: Path | None = None
    flags: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Of the front, the file and the flags beside the numbers."""
        beside = {} if self.front is None else {"file": str(self.file), "flags": dict(self.flags)}
        return {"label": self.candidate.label, "gpus": self.candidate.gpus, "keys": dict(self.candidate.keys),
                "meets_slo": self.meets, "front": self.front, **self.found, **beside}  # fmt: skip


@dataclass(frozen=True)
class Recommendation(Tabular):
    """simulated: all that was; refused: how many candidates cannot be, by reason; left: candidates that may yet
    belong to the front. share: of the exhaustive hypervolume that the search alone reaches, with `searched` runs.
    dropped: keys of the scenario's pools that no candidate has.
    """

    name: str
    mode: str
    columns: tuple[str, ...]
    simulated: tuple[Row, ...]
    candidates: int
    refused: Mapping[str, int]
    left: int
    hypervolume: float
    slack: tuple[float, ...]
    folder: Path
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    share: float | None = None
    searched: int | None = None
    dropped: tuple[str, ...] = ()

    @property
    def front(self) -> list[Row]:
        """In order: the first has the most tokens of a GPU, so the cheapest ones."""
        rows = [row for row in self.simulated if row.front is not None]
        return sorted(rows, key=lambda row: row.front or 0)

    def rows(self) -> Rows:
        """A row a simulated candidate."""
        return [{"label": row.candidate.label, "gpus": row.candidate.gpus, **row.found, "meets_slo": row.meets,
                 "front": row.front} for row in self.simulated]  # fmt: skip

    def title(self) -> str:
        """ "qwen3: 60 candidates, 20 simulated, 4 on the front" """
        return (f"{self.name}: {self.candidates} candidates, {sum(self.refused.values())} cannot be, "
                f"{len(self.simulated) + self.failed} simulated, {len(self.front)} on the front")  # fmt: skip

    def said_with(self) -> Sequence[str]:
        """What has to be said beside the numbers."""
        return list(self._said())

    def _said(self) -> Iterator[str]:
        if self.dropped:
            yield (f"{', '.join(self.dropped)}: left out, as pools are searched; keys of the scenario's own hold for "
                   "both, and moesim sweep keeps those of a pool")  # fmt: skip
        yield from (f"{count} candidates: {why}" for why, count in self.refused.items())
        if self.failed:
            told = "; ".join(f"{count}: {why}" for why, count in self.reasons.items())
            yield f"{self.failed} simulated candidates failed ({told}); see results.csv in {self.folder}"
        if self.share is not None:
            yield (f"every candidate was simulated; the search alone would have run {self.searched} of them and "
                   f"reached {self.share:.2%} of this hypervolume")  # fmt: skip
        elif self.left:
            yield (f"the budget ended with {self.left} candidates that may yet belong to the front: --simulate more, "
                   "or --exhaustive")  # fmt: skip
        elif self.slack:
            most = ", ".join(f"{slack:.0%}" for slack in self.slack)
            yield (f"the rest was left out by arithmetic: to reach the front one of them has to come out above its "
                   f"estimate by more than any of the {len(self.simulated)} simulated ones did ({most}: rate, speed, "
                   "wait); estimates know no prefix cache, and --exhaustive goes by none")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        counts = {
            "candidates": self.candidates,
            "refused": sum(self.refused.values()),
            "simulated": len(self.simulated),
            "front_points": len(self.front),
            "left": self.left,
            "hypervolume": self.hypervolume,
        }
        counts |= {} if self.share is None else {"share_of_exhaustive": self.share, "searched": self.searched or 0}
        return {
            "metrics": {name: {"value": value, "unit": "1"} for name, value in counts.items()},
            "breakdown": {},
            "front": [row.to_json() for row in self.front],
            "simulated": [row.to_json() for row in self.simulated if row.front is None],
            "provenance": {"moesim": __version__, "kind": "recommend", "scenario": self.name, "mode": self.mode,
                           "folder": str(self.folder)},
            "warnings": list(self.said_with()),
        }  # fmt: skip
