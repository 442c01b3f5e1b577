"""Penalised model selection: of grids with ever more pieces that which a criterion prefers, beside errors on rows that
no fit had seen. The criterion sees the fitted rows only; that it agrees with the held-out ones is what it is for.

Source: GLoME and BLoME (Nguyen et al.) for the question, with experts of a regression as pieces; AIC and BIC as
everywhere, on the absolute loss of the fits here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from moesim.calibration.fit_grid import AIC, Score, score
from moesim.calibration.fit_operator import Fitted, take
from moesim.calibration.heldout import Prepared, held_out, prepare, way_of
from moesim.calibration.kernels import roles_of
from moesim.calibration.physics import by_kernel, label
from moesim.calibration.records import Records
from moesim.calibration.systems import System
from moesim.costs.grid import CLIP
from moesim.costs.shapes import KINDS
from moesim.errors import BadInput, pick

FINENESSES: Final = (8.0, 4.0, 2.0, 1.0, 0.5)  # factors on the octaves between knots, coarse to fine
PENALTIES: Final = ("none", "aic", "bic")


@dataclass(frozen=True)
class Candidate:
    """A grid's score; medians of |predicted / measured - 1| over the rows it was fitted on and over rows held out."""

    score: Score
    fitted: float
    held_out: float


@dataclass(frozen=True)
class Selection:
    """The candidates of one kernel, its sound rows and how some of them are held out."""

    op: str
    kernel: str
    rows: int
    way: str
    candidates: tuple[Candidate, ...]

    def chosen(self, penalty: str) -> Candidate:
        """The one that the criterion prefers."""
        each = {"none": 0.0, "aic": AIC, "bic": math.log(self.rows)}[penalty]
        return min(self.candidates, key=lambda one: one.score.penalised(each))

    def to_json(self, penalty: str) -> dict[str, Any]:
        """An entry of the document."""
        rows = [
            {"fineness": one.score.fineness, "pieces": one.score.pieces, "fitted": one.fitted, "held_out": one.held_out}
            for one in self.candidates
        ]
        facts = {"op": self.op, "kernel": self.kernel, "rows": self.rows, "held_out_by": self.way}
        return facts | {"chosen": self.chosen(penalty).score.fineness, "candidates": rows}


def select(records: Records, system: System, ops: Sequence[str] = ()) -> list[Selection]:
    """Each kernel that a profile would be fitted of, of these operators or all. Raises BadInput where there is none."""
    known = sorted({str(name) for name in records["op"]})
    for op in ops:
        pick("operator", op, dict.fromkeys(known), where="--op")
    wanted = records.where(np.isin(records["op"].astype(str), ops or known))
    found = list(_selections(label(wanted, system), system))
    if not found:
        way_out = "records of gemm, grouped_gemm or attention, of two shapes or sizes and more"
        raise BadInput(
            "no kernel that a profile knows has rows of two shapes or sizes", where="select", way_out=way_out
        )
    return found


def _selections(records: Records, system: System) -> Iterator[Selection]:
    for part in by_kernel(records):
        way = way_of(part)
        if way and roles_of(part)[0]:
            prepared = prepare(part, system.peaks(str(part["dtype"][0])))
            usual = prepared.fit(prepared.sound)
            tried = tuple(_candidate(prepared, replace(usual, fineness=one), way) for one in FINENESSES)
            yield Selection(str(part["op"][0]), str(part["kernel"][0]), int(prepared.sound.sum()), way, tried)


def _candidate(prepared: Prepared, like: Fitted, way: str) -> Candidate:
    """like: the form and tile that all share, and this one's fineness."""
    demand, seconds = take(prepared.demands[like.tile], prepared.sound), prepared.seconds[prepared.sound]
    left = np.clip(np.log(seconds / like.form.seconds(demand)), -CLIP, CLIP)
    fitted = prepared.predict(prepared.fit(prepared.sound, like), prepared.sound)
    off = float(np.median(np.abs(fitted / seconds - 1)))
    scored = score(KINDS[prepared.kind], demand.coordinates, left, like.fineness)
    return Candidate(scored, off, held_out(prepared, way, like).absolute(0.5))


def document(found: list[Selection], penalty: str) -> dict[str, Any]:
    """What `--json` prints: pieces and errors of the chosen one of each operator's first kernel, and all candidates."""
    metrics: dict[str, Any] = {}
    for one in found:
        best = one.chosen(penalty)
        for name, value in (("pieces", best.score.pieces), ("fitted", best.fitted), ("held_out", best.held_out)):
            metrics.setdefault(f"{one.op}_{name}", {"value": value, "unit": "1"})
    return {"metrics": metrics, "penalty": penalty, "kernels": [one.to_json(penalty) for one in found], "warnings": []}
