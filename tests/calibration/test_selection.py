"""Penalised selection: the criterion by hand, and what it does to pieces that only noise asks for."""

from __future__ import annotations

import math

import numpy as np

from moesim.calibration.fit_grid import AIC, Score, score
from moesim.calibration.selection import Candidate, Selection
from moesim.costs.shapes import KINDS


def test_the_criterion_by_hand() -> None:
    coarse, fine = Score(8.0, 3.0, -100.0), Score(1.0, 9.0, -108.0)
    found = Selection("gemm", "k", 40, "shape", (Candidate(coarse, 0.1, 0.2), Candidate(fine, 0.05, 0.3)))
    assert coarse.penalised(AIC) == -94 and fine.penalised(AIC) == -90
    chosen = {penalty: found.chosen(penalty).score for penalty in ("none", "aic", "bic")}
    assert chosen == {"none": fine, "aic": coarse, "bic": coarse}
    assert found.to_json("none")["chosen"] == 1.0
    assert math.log(40) > AIC, "BIC asks for more of a piece than AIC from eight rows on"


def test_finer_grids_have_more_pieces_and_miss_less_of_what_they_were_fitted_on() -> None:
    draw = np.random.default_rng(0)
    kind = KINDS["collective"]
    coordinates = [draw.uniform(0, 8, 300) for _ in kind.coordinates]
    left = 0.1 * np.sin(coordinates[0]) + 0.01 * draw.standard_normal(300)
    coarse, fine = (score(kind, coordinates, left, fineness) for fineness in (4.0, 1.0))
    assert fine.pieces > coarse.pieces
    assert fine.misfit < coarse.misfit
