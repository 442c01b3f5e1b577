"""Check: a profile, or refits without what is judged, against measured records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.calibration.communication import prepare_transfer, within_reach
from moesim.calibration.demands import KIND
from moesim.calibration.distances import DISTANCES, MOST, Samples, Transport, transport
from moesim.calibration.fit_operator import Fitted
from moesim.calibration.heldout import Errors, Prepared, errors, pooled, prepare, splits
from moesim.calibration.kernels import name_of
from moesim.calibration.ops import OPS
from moesim.calibration.physics import by_kernel, label
from moesim.calibration.records import Records
from moesim.calibration.shapes_file import Shape, of_shapes
from moesim.calibration.systems import System
from moesim.costs.profile_file import known_profiles, read_profile
from moesim.errors import BadInput, unknown_name

Bools = npt.NDArray[np.bool_]
WORST: Final = 5
BANDS: Final = 4  # octave bands of an operator's size column, four to a band
DECIMALS: Final = 4


@dataclass(frozen=True)
class OperatorCheck:
    """One kernel: its name and operator, the records that were judged, and their errors."""

    name: str
    op: str
    records: Records
    errors: Errors

    @property
    def predicted(self) -> npt.NDArray[np.float64]:
        """float64[rows] seconds."""
        return np.asarray(self.records["seconds"] / np.exp(self.errors.log))

    @property
    def transport(self) -> Transport:
        """Between the simulated and the measured latencies of sound rows."""
        sound = self.errors.sound
        return transport(self.records["seconds"][sound], self.predicted[sound])

    def distance(self, name: str, scale: float) -> dict[str, float]:
        """A distance of DISTANCES between the simulated and the measured latencies of sound rows, and its parts."""
        sound, op = self.errors.sound, OPS[self.op]
        columns = [self.records[column][sound] for column in dict.fromkeys((*op.shape, op.size, "batch", "ep", "tp"))]
        octaves = np.log2(np.maximum(np.stack(columns, axis=1).astype(np.float64), 1))
        return DISTANCES[name](Samples.of(self.records["seconds"][sound], self.predicted[sound], octaves), scale)

    def splits(self) -> dict[str, tuple[int, float, float]]:
        """Bands of size and distributions -> sound rows, median and 90th percentile of their absolute error."""
        size, found = self.records[OPS[self.op].size], {}
        band = np.floor(np.log2(np.maximum(size, 1)) / BANDS).astype(int) * BANDS
        for low in np.unique(band):
            found[f"{OPS[self.op].size} {2**low} to {2 ** (low + BANDS) - 1}"] = self._of(band == low)
        names = self.records["distribution"]
        for name in sorted(set(names) - {""}):
            found[str(name)] = self._of(names == name)
        return {name: values for name, values in found.items() if values[0]}

    def worst(self) -> list[str]:
        """The cases that are furthest off, in words."""
        order = np.argsort(-np.abs(np.where(self.errors.sound, self.errors.log, 0)))[:WORST]
        columns = dict.fromkeys((*OPS[self.op].shape, OPS[self.op].size, "batch", "tp", "ep", "world", "distribution"))
        return [
            f"{', '.join(f'{name} {self.records[name][row]}' for name in columns if self.records[name][row])}: "
            f"{self.records['seconds'][row] * 1e6:.1f} us measured, {self.predicted[row] * 1e6:.1f} predicted"
            for row in order
        ]

    def _of(self, rows: Bools) -> tuple[int, float, float]:
        chosen = Errors(self.errors.log[rows], self.errors.sound[rows], self.errors.fold[rows], self.errors.row[rows])
        return int(np.count_nonzero(chosen.sound)), chosen.absolute(0.5), chosen.absolute(0.9)


@dataclass(frozen=True)
class Checked:
    """What a check found: how rows were held out ("": not at all), one entry per kernel, and by reason the names of
    kernels that were not judged.
    """

    profile: str
    way: str
    operators: tuple[OperatorCheck, ...]
    skipped: Mapping[str, Sequence[str]]
    distance: tuple[str, float] | None = None  # of DISTANCES, and its scale

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        metrics = {name: value for op in sorted({one.op for one in self.operators}) for name, value in self._op(op)}
        warnings = [f"not judged, {reason}: {name}" for reason, names in self.skipped.items() for name in names]
        return {
            "metrics": {
                name: {"value": round(value, DECIMALS), "unit": "1"} for name, value in (metrics | self._far()).items()
            },
            "breakdown": {one.name: _numbers(one) for one in self.operators},
            "provenance": {"profile": self.profile, "held_out_by": self.way or None},
            "warnings": warnings,
        }

    @property
    def remark(self) -> str:
        """What was not judged and why, in a line; "" if nothing."""
        large = self.distance and any(np.count_nonzero(one.errors.sound) > MOST for one in self.operators)
        told = [f"the distance is of {MOST:,} evenly spaced rows of kernels that have more"] if large else []
        told += [f"not judged: {_told(self.skipped)} (--json names all)"] if self.skipped else []
        return "; ".join(told)

    @cached_property
    def distances(self) -> list[tuple[OperatorCheck, dict[str, float]]]:
        """Of each kernel the distance that was asked for and its parts, and Wasserstein's beside it."""
        if self.distance is None:
            return []
        return [
            (one, one.distance(*self.distance) | {"wasserstein": one.transport.wasserstein}) for one in self.operators
        ]

    def _far(self) -> dict[str, float]:
        """`distances`, each part's mean over the kernels of an operator."""
        found: dict[str, list[float]] = {}
        for one, parts in self.distances:
            for part, value in parts.items():
                found.setdefault(f"{one.op}_{part}", []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _op(self, op: str) -> Iterable[tuple[str, float]]:
        errors_of = pooled([one.errors for one in self.operators if one.op == op])
        for name, quantile in (("median", 0.5), ("p90", 0.9)):
            yield f"{op}_{name}_abs_error", errors_of.absolute(quantile)
            yield f"{op}_{name}_abs_error_all_rows", errors_of.absolute(quantile, all_rows=True)


def _numbers(one: OperatorCheck) -> dict[str, Any]:
    moved = one.transport
    return {
        "rows": len(one.records), "labelled": int(np.count_nonzero(~one.errors.sound)),
        "median_abs_error": round(one.errors.absolute(0.5), DECIMALS),
        "p90_abs_error": round(one.errors.absolute(0.9), DECIMALS),
        "wasserstein": round(moved.wasserstein, DECIMALS), "simulated_too_slow": round(moved.too_slow, DECIMALS),
        "simulated_too_fast": round(moved.too_fast, DECIMALS), "worst": one.worst(),
    }  # fmt: skip


def profile_path(profile: str) -> Path:
    """The file of a shipped name, or the file itself. Raises BadInput."""
    path = known_profiles().get(profile) or Path(profile)
    if path.suffix not in {".yaml", ".yml"}:
        raise unknown_name("profile", profile, known_profiles())
    return path


def _other_way(way: str | None) -> str:
    return f"another --holdout than {way}, or none" if way else "records that the profile was fitted to, or a new fit"


def check_profile(
    path: Path, records: Records, system: System, way: str | None = None, shapes: frozenset[Shape] = frozenset()
) -> Checked:  # fmt: skip
    """Judge the records that the profile has kernels for; with shapes, only expert shapes among these.

    Without `way` by the profile as it is; otherwise by refits without each fold (and with shapes, without those).
    Raises BadInput where nothing can be judged.
    """
    section, grids = read_profile(path)
    if section.device != system.device.name:
        raise BadInput(
            f"the records are of {system.device.name}, the profile is of {section.device}", where=path,
            way_out=f"a profile of {system.device.name}: moesim calibrate fit makes one of these records",
        )  # fmt: skip
    found: list[OperatorCheck] = []
    skipped: dict[str, list[str]] = {}
    for part in by_kernel(label(records, system)):
        part = part.where(part["window"] == 0)
        if not len(part):
            continue
        name, transfer = name_of(part), KIND.get(str(part["op"][0])) == "collective" and way == "world"
        part = within_reach(part) if transfer else part
        if not len(part) or not (transfer or name in section.operators):
            reason = (
                "only of more ranks than any profile is judged on" if transfer else "the profile has no such kernel"
            )
            skipped.setdefault(reason, []).append(name)
            continue
        if not (transfer or way) and section.operators[name].kind == "gemm_aligned":
            skipped.setdefault("fitted by an earlier moesim, in other coordinates", []).append(name)
            continue
        peaks = system.peaks(str(part["dtype"][0]))
        prepared = prepare_transfer(part, system) if transfer else prepare(part, peaks)
        reason = _why_not(part, prepared, way, shapes)
        if reason:
            skipped.setdefault(reason, []).append(name)
        elif way:
            found.append(_judged(name, part, errors(prepared, _splits(part, prepared, way, shapes))))
        else:
            fitted = Fitted(section.operators[name].form, grids[name], section.operators[name].tile, ())
            found.append(_judged(name, part, _as_it_is(prepared, fitted, _asked_for(part, shapes))))
    if not found:
        raise BadInput(f"none of the records can be judged ({_told(skipped)})", where=path, way_out=_other_way(way))
    return Checked(section.name, way or "", tuple(found), skipped)


def _why_not(records: Records, prepared: Prepared, way: str | None, shapes: frozenset[Shape]) -> str:
    """Why a kernel is not judged; "" if it is."""
    if shapes and not of_shapes(records, shapes).any():
        return "none of the shapes asked for"
    if not (prepared.sound & _asked_for(records, shapes)).any():
        return "all rows are labelled"
    if way and not _splits(records, prepared, way, shapes):
        return f"nothing to hold out by {way}"
    return ""


def _asked_for(records: Records, shapes: frozenset[Shape]) -> Bools:
    """bool[rows]"""
    return of_shapes(records, shapes) if shapes else np.ones(len(records), dtype=np.bool_)


def _splits(records: Records, prepared: Prepared, way: str, shapes: frozenset[Shape]) -> list[tuple[Bools, Bools]]:
    """Rows to fit on and to judge: shapes that are named are held out together, or limit what is judged."""
    chosen = _asked_for(records, shapes)
    both = [(~chosen, chosen)] if way == "shape" and shapes else splits(prepared, way)
    kept = [(train, test & chosen) for train, test in both]
    return [(train, test) for train, test in kept if all((rows & prepared.sound).any() for rows in (train, test))]


def _told(skipped: Mapping[str, Sequence[str]]) -> str:
    """Each reason, a kernel, and how many others."""
    return "; ".join(
        f"{reason}: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for reason, names in skipped.items()
    )


def _as_it_is(prepared: Prepared, fitted: Fitted, chosen: Bools) -> Errors:
    """Of the chosen rows, by what the profile holds."""
    log = np.log(prepared.seconds[chosen] / prepared.predict(fitted, chosen))
    return Errors(log, prepared.sound[chosen], np.zeros(len(log), dtype=np.int64), np.flatnonzero(chosen))


def _judged(name: str, records: Records, found: Errors) -> OperatorCheck:
    """With the rows that were judged, in the order of the records."""
    judged = np.zeros(len(records), dtype=np.bool_)
    judged[found.row] = True
    order = np.argsort(found.row)
    ordered = Errors(found.log[order], found.sound[order], found.fold[order], found.row[order])
    return OperatorCheck(name, str(records["op"][0]), records.where(judged), ordered)
