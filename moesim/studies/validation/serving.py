"""`moesim validate serving`: TTFT and TPOT of served models against measured ones.

Rows are closed loops (`serving_loops.py`); measured values are means. Engines run by their presets, with the launch
settings of the campaigns (`serving_kinds.py`, documented, none fitted). Steps are played by `Tabled` tables of the
corridor's Pace, which nothing here is fitted to. A row is played three times: with the constants of its engine's
preset, which were fitted on the shipped rows (`calibration/fit_serving.py`); with those that were fitted without the
rows of its model and system; and with none. Rows whose `flag` is not ok are told apart and count in no metric.
Without a file of the user's, two dense models served by vLLM are played too (`serving_runs.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from moesim import shipped
from moesim.errors import MoesimError
from moesim.hardware import load_cluster
from moesim.studies.validation.rows import Row, nothing_understood, number, read_rows, spearman
from moesim.studies.validation.serving_band import band_of, learned
from moesim.studies.validation.serving_kinds import ROUTING
from moesim.studies.validation.serving_loops import NOTHING_FITTED, Asked, Constants, left_out, played
from moesim.studies.validation.serving_runs import Compared, compared, runs
from moesim.studies.validation.systems import topology_of
from moesim.studies.validation.validation import Point, Validation, errors

DATA: Final = ("workloads", "validation", "silicon_dev.csv")
COLUMNS: Final = (
    "id", "backend", "model_path", "system", "isl", "osl", "gemm_quant_mode", "moe_quant_mode", "tp_size",
    "attention_dp_size", "moe_tp_size", "moe_ep_size", "silicon_ttft_ms", "silicon_tpot_ms", "concurrency",
)  # fmt: skip
SLICES: Final = ("flag", "system", "backend", "model", "parallelism", "concurrency")
WAYS: Final = ("", "_left_out", "_nothing_fitted")  # how rows are played, by what is added to a metric's name


@dataclass(frozen=True)
class ServingValidation(Validation):
    """Points of TTFT and TPOT, two a row; refused: reason -> rows; otherwise: WAYS -> the same rows, played so;
    runs: dense models served request by request.
    """

    refused: Mapping[str, int] = field(default_factory=dict)
    otherwise: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    runs: Mapping[str, Compared] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As Validation, with the metrics of rows whose flag is ok."""
        found = super().to_json()
        metrics: dict[str, float] = {}
        for way, points in (("", self.points), *self.otherwise.items()):
            metrics |= {f"{name}{way}": value for name, value in _metrics(points).items()}
        if (covered := self._coverage()) is not None:
            metrics["tpot_band_coverage"] = covered
        metrics["answered_fraction"] = len(self.points) / 2 / max(self.asked or 1, 1)
        for name, run in self.runs.items():
            for metric, told in run.items():
                metrics[f"{name}_mean_{metric}_error"] = told["mean"][1] / told["mean"][0] - 1
        found["metrics"] = {name: {"value": value, "unit": "1"} for name, value in metrics.items()}
        found["provenance"]["refused"] = dict(self.refused)
        found["provenance"]["runs"] = {name: dict(run) for name, run in self.runs.items()}
        return found

    def _coverage(self) -> float | None:
        """Share of the ok rows that have a band whose measured TPOT lies in it."""
        rows = [one for one in self.points if one.keys["metric"] == "tpot" and one.keys["flag"] == "ok"]
        banded = [(one.measured / one.predicted, band) for one in rows if (band := band_of(one)) is not None]
        inside = [low <= ratio <= high for ratio, (low, high) in banded]
        return sum(inside) / len(inside) if inside else None

    def breakdown(self) -> dict[str, Any]:
        """slice -> value -> metric -> errors."""
        return {key: {name: _by_metric(some) for name, some in _by(self.points, key).items()} for key in SLICES}


def _metrics(points: Sequence[Point]) -> dict[str, float]:
    """Of rows whose flag is ok, of all where there are none."""
    ok = [point for point in points if point.keys["flag"] == "ok"] or list(points)
    found: dict[str, float] = {}
    for metric in ("tpot", "ttft"):
        some = [point for point in ok if point.keys["metric"] == metric]
        told = errors(point.error for point in some)
        found |= {f"{metric}_{name}": told[name] for name in ("mean_abs_error", "median_abs_error")}
        found[f"{metric}_geometric_mean_ratio"] = told["geometric_mean_ratio"]
        found[f"{metric}_rank_correlation"] = spearman(some)
    return found


def _by(points: Sequence[Point], key: str) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.keys[key], []).append(point)
    return dict(sorted(found.items()))


def _by_metric(points: Sequence[Point]) -> dict[str, Any]:
    return {metric: errors(point.error for point in some) for metric, some in _by(points, "metric").items()}


def validate(data: Path | None = None) -> ServingValidation:
    """Serve every row of a file with these columns. Raises BadInput where none is understood."""
    path = data or shipped.shipped(*DATA)
    rows = [row for _, row in read_rows(path, COLUMNS)]
    points: dict[str, list[Point]] = {way: [] for way in WAYS}
    refused: dict[str, int] = {}
    for row in rows:
        try:
            found = tuple(_points(row))
        except MoesimError as error:
            refused[_reason(error)] = refused.get(_reason(error), 0) + 1
        else:
            for way, two in zip(WAYS, found, strict=True):
                points[way] += two
    if not points[""]:
        raise nothing_understood(path, list(refused))
    return ServingValidation(
        suite="serving",
        points=tuple(points[""]),
        breakdown_by=(),
        provenance=_provenance(path, points),
        warnings=(
            *(f"{count} rows refused: {why}" for why, count in sorted(refused.items())),
            *(
                f"{system}: nobody measured it; kernels of {profile} are carried to its rates, assumed"
                for system, profile in _carried(point.keys["system"] for point in points[""]).items()
            ),
        ),
        asked=len(rows),
        refused=refused,
        otherwise={way: tuple(some) for way, some in points.items() if way},
        runs={} if data else {run.name: compared(run) for run in runs()},
    )


def _carried(systems: Iterable[str]) -> dict[str, str]:
    """system -> the profile whose kernels are carried to it, of those that nobody measured."""
    like = {system: load_cluster(topology_of(system)).devices[0].like for system in sorted(set(systems))}
    return {system: profile for system, profile in like.items() if profile}


def _provenance(path: Path, points: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    backends = sorted({point.keys["backend"] for point in points[""]})
    return {
        "data": path.name,
        "engines": "presets, launch settings of the campaigns",
        "constants": {backend: Constants.of(backend)._asdict() for backend in backends},
        "carried": _carried(point.keys["system"] for point in points[""]),
        "routing": f"sampled, assumed: {ROUTING} for every model",
        "fitted": "four constants an engine, on the shipped rows; _left_out: without the rows of the same model and "
        "system; _nothing_fitted: host 0.3 ms a step, eager and API time 0, no slowdown, for all engines; the file of "
        "loads was chosen on these rows for every way",
        "band": "80 %, a model error of each engine: quantile of |log(measured / predicted)| of rows of its other "
        "(model, system)s; of one without shipped rows, of all, as constants predict them that never saw them",
        "band_learned": learned(points[""], points["_left_out"]),
    }


def _reason(error: MoesimError) -> str:
    return f"{error.where.partition(' ')[2] or error.where}: {error.what}".removeprefix(": ")


def _points(row: Row) -> Iterator[tuple[Point, Point]]:
    """TTFT and TPOT of a row, each way. Raises MoesimError where it cannot be served."""
    asked = Asked.of(row)
    kind = asked.kind
    keys = {
        "id": row["id"], "flag": row.get("flag") or "ok", "system": kind.system, "backend": kind.backend,
        "model": kind.model, "parallelism": kind.parallelism, "isl": row["isl"], "osl": row["osl"],
        "concurrency": row["concurrency"].removesuffix(".0"),
    }  # fmt: skip
    measured = [number(row, f"silicon_{metric}_ms") for metric in ("ttft", "tpot")]
    for constants in (Constants.of(kind.backend), left_out(asked), NOTHING_FITTED):
        first, later = played(asked, constants)
        yield (
            Point({"metric": "ttft", **keys}, "ms", measured[0], first),
            Point({"metric": "tpot", **keys}, "ms", measured[1], later),
        )
