"""Held-out errors: rows are left out by unseen shape (sorted, fold = index modulo 4), by skew or by world size, never
at random, which would flatter: rows of one shape resemble each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from moesim.calibration.demands import KIND, demand_of
from moesim.calibration.fit_operator import GRID_ROWS, Fitted, Peaks, fit, take
from moesim.calibration.ops import OPS
from moesim.calibration.records import OK, Records
from moesim.costs.shapes import KINDS, Demand, tiles_of
from moesim.errors import BadInput, unknown_name

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
FOLDS: Final = 4
SKEWED: Final = "power_law_1.2"
NEARLY_SKEWED: Final = "power_law_1.0"  # 1.01 and 1.02 are so near that they may help neither side
WAYS: Final = ("shape", "skew", "world", "size", "width", "range")
WIDTH: Final = {"gemm": "n"}  # whole widths of it are left out together
RANGE: Final = {
    "gemm": ("n", "k"), "grouped_gemm": ("hidden", "inter"), "attention_prefill": ("heads", "head_dim"),
    "attention_decode": ("heads", "head_dim"), "attention_encoder": ("heads", "query"),
    "mla_prefill": ("heads",), "mla_decode": ("heads",),
    "absorbed": ("heads", "tokens"), "latent_prefill": ("heads",), "latent_decode": ("heads",),
    **{f"{kind}_{phase}": ("heads",) for kind in ("dsa", "dsa_reuse", "csa", "hca", "msa")
       for phase in ("prefill", "decode")},
    "hyper_pre": ("tokens",), "hyper_post": ("tokens",),
    **{f"{kind}_{phase}": (("hidden",) if kind == "conv" else ("heads",)) for kind in ("conv", "gdn", "kda")
       for phase in ("prefill", "decode")},
}  # fmt: skip
TEST, NEITHER = 1, -1


@dataclass(frozen=True)
class Errors:
    """Of the rows that were held out: ln(measured / predicted) float64[rows], which of them obey physics, the fold that
    each was left out with, and which rows of the records they are.
    """

    log: Floats
    sound: Bools
    fold: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]

    def absolute(self, quantile: float, *, all_rows: bool = False) -> float:
        """A quantile of |predicted / measured - 1|."""
        chosen = self.log if all_rows else self.log[self.sound]
        return float(np.quantile(np.abs(np.expm1(-chosen)), quantile)) if len(chosen) else 0.0

    def interval(self, outside: int | None = None) -> tuple[float, float]:
        """Between which 80 % of ln(measured / predicted) lie, of all folds but one. Conformal: from held-out shapes."""
        chosen = self.log[self.sound & (self.fold != outside)]
        low, high = np.quantile(chosen, [0.1, 0.9]) if len(chosen) else (0.0, 0.0)
        return min(float(low), 0.0), max(float(high), 0.0)

    def coverage(self) -> float:
        """Fraction of held-out rows inside the interval that the other folds give."""
        inside = 0
        for fold in np.unique(self.fold):
            low, high = self.interval(int(fold))
            own = self.log[self.sound & (self.fold == fold)]
            inside += int(np.count_nonzero((own >= low) & (own <= high)))
        return inside / max(int(np.count_nonzero(self.sound)), 1)

    def section(self) -> dict[str, float]:
        """As a profile writes them."""
        told = {
            "median": self.absolute(0.5), "p90": self.absolute(0.9), "all_median": self.absolute(0.5, all_rows=True),
            "all_p90": self.absolute(0.9, all_rows=True), "coverage": self.coverage(),
        }  # fmt: skip
        return {name: float(f"{value:.4g}") for name, value in told.items()}


def pooled(parts: Sequence[Errors]) -> Errors:
    """All rows together; a fold keeps its number."""
    columns = zip(*((one.log, one.sound, one.fold, one.row) for one in parts), strict=True)
    return Errors(*(np.concatenate(column) for column in columns))


class Prior(Protocol):
    """What is known of a kernel before its records (see `calibration.prior`)."""

    @property
    def name(self) -> str:
        """Its profile and operator."""

    @property
    def tile(self) -> int:
        """Rows that its GEMMs pad to."""

    def corrected(self, kind: str, demand: Demand, seconds: Floats) -> Fitted:
        """By what these rows took, float64[rows]."""


@dataclass(frozen=True)
class Prepared:
    """Records of one kernel, as a fit sees them: their kind, demands by tile, seconds float64[rows], which obey
    physics, by way of holding out the numbers of the rows' folds (see `folds_of`), and what is known before them.
    """

    kind: str
    demands: dict[int, Demand]
    seconds: Floats
    sound: Bools
    peaks: Peaks
    folds: dict[str, npt.NDArray[np.int64]]
    prior: Prior | None = None

    def fit(self, rows: Bools, like: Fitted | None = None, most: int = GRID_ROWS) -> Fitted:
        """The sound ones among `rows`; see `fit_operator.fit`. A prior is corrected by them."""
        chosen = rows & self.sound
        if self.prior:
            demand = take(self.demands[self.prior.tile], chosen)
            return self.prior.corrected(self.kind, demand, self.seconds[chosen])
        demands = {tile: take(demand, chosen) for tile, demand in self.demands.items()}
        return fit(KINDS[self.kind], demands, self.seconds[chosen], self.peaks, like, most)

    def predict(self, fitted: Fitted, rows: Bools) -> Floats:
        """float64[rows] seconds, as a profile answers: never faster than physics."""
        demand = take(self.demands[fitted.tile], rows)
        return np.asarray(np.maximum(fitted.seconds(demand), self.peaks.bound(demand)))


def prepare(records: Records, peaks: Peaks) -> Prepared:
    """Records of one operator, kernel and dtypes, labelled or not."""
    kind = KIND[str(records["op"][0])]
    demands = {tile: demand_of(records, tile) for tile in tiles_of(kind)}
    return Prepared(kind, demands, records["seconds"], records["label"] == OK, peaks, folds_of(records))


def folds_of(records: Records) -> dict[str, npt.NDArray[np.int64]]:
    """By way: shape: number modulo 4; world: its size; skew: TEST for the most skewed rows, NEITHER for their likes."""
    names = records["distribution"]
    near = np.array([str(name).startswith(NEARLY_SKEWED) for name in names], dtype=np.bool_)
    skew = np.where(names == SKEWED, TEST, np.where(near, NEITHER, 0)).astype(np.int64)
    return {"shape": shape_folds(records), "size": size_folds(records), "world": records["world"].astype(np.int64),
            "skew": skew, "width": width_folds(records), "range": range_folds(records)}  # fmt: skip


def shape_folds(records: Records) -> npt.NDArray[np.int64]:
    """int64[rows]: the shapes of one operator sorted, numbered, modulo 4."""
    columns = OPS[str(records["op"][0])].shape
    if not columns:
        return np.zeros(len(records), dtype=np.int64)
    shapes = np.stack([records[name] for name in columns], axis=1)
    return np.unique(shapes, axis=0, return_inverse=True)[1].ravel().astype(np.int64) % FOLDS


def size_folds(records: Records) -> npt.NDArray[np.int64]:
    """int64[rows]: the sizes of one operator sorted, numbered, modulo 4."""
    sizes = records[OPS[str(records["op"][0])].size]
    return np.unique(sizes, return_inverse=True)[1].ravel().astype(np.int64) % FOLDS


def width_folds(records: Records) -> npt.NDArray[np.int64]:
    """int64[rows]: the widths of a GEMM sorted, numbered, modulo 4; NEITHER for another operator."""
    name = WIDTH.get(str(records["op"][0]))
    if name is None:
        return np.full(len(records), NEITHER, dtype=np.int64)
    return np.unique(records[name], return_inverse=True)[1].ravel().astype(np.int64) % FOLDS


def range_folds(records: Records) -> npt.NDArray[np.int64]:
    """int64[rows]: 0 inside; a number for each end of each column of RANGE, whose rows a fit without them does not
    reach: it is asked beyond its hull.
    """
    folds = np.zeros(len(records), dtype=np.int64)
    for number, name in enumerate(RANGE.get(str(records["op"][0]), ())):
        values = np.unique(records[name])
        if len(values) >= FOLDS:
            folds[records[name] == values[0]] = 2 * number + 1
            folds[records[name] == values[-1]] = 2 * number + 2
    return folds


def way_of(records: Records) -> str:
    """How a fit of one kernel is judged: by unseen shapes; by unseen sizes where there is a single shape, as in records
    of one model; "" where neither can be.
    """
    sound = records["label"] == OK
    folds = {"shape": shape_folds(records), "size": size_folds(records)}
    return next((way for way, numbers in folds.items() if len(np.unique(numbers[sound])) > 1), "")


def held_out(prepared: Prepared, way: str, like: Fitted | None = None, most: int = GRID_ROWS) -> Errors:
    """Errors of rows that were left out by one of WAYS. Raises BadInput for another. like, most: see `Prepared.fit`."""
    return errors(prepared, splits(prepared, way), like, most)


def splits(prepared: Prepared, way: str) -> list[tuple[Bools, Bools]]:
    """Rows to fit on and rows to predict, bool[rows] each, where there are both. Raises BadInput for an unknown way."""
    if way not in WAYS:
        raise unknown_name("hold-out", way, WAYS)
    groups = prepared.folds[way]
    tests = {"skew": np.array([TEST]), "range": np.unique(groups[groups > 0])}.get(way, np.unique(groups[groups >= 0]))
    both = [((groups != one) & (groups != NEITHER), groups == one) for one in tests]
    return [(train, test) for train, test in both if (train & prepared.sound).any() and (test & prepared.sound).any()]


def errors(
    prepared: Prepared, splits: list[tuple[Bools, Bools]], like: Fitted | None = None, most: int = GRID_ROWS
) -> Errors:  # fmt: skip
    """Each split fitted on its first rows and judged on its second. Raises BadInput where there is none."""
    found = []
    for number, (train, test) in enumerate(splits):
        predicted = prepared.predict(prepared.fit(train, like, most), test)
        log = np.log(prepared.seconds[test] / predicted)
        found.append((log, prepared.sound[test], np.full(len(log), number), np.flatnonzero(test)))
    if not found:
        raise BadInput("nothing can be held out: the records know a single shape, skew or world size")
    return Errors(*(np.concatenate(column) for column in zip(*found, strict=True)))
