"""Records of one device -> a profile: YAML of forms, errors and constants, and Parquet of residual grids.

Each kernel of each set is fitted on its sound rows; errors and intervals come from four more fits that had not seen the
shapes that they are judged on.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from moesim import atomic
from moesim.calibration import communication
from moesim.calibration.additions import added
from moesim.calibration.borrowed import borrowed
from moesim.calibration.demands import KIND
from moesim.calibration.fit_operator import Fitted
from moesim.calibration.heldout import Errors, Prepared, held_out, pooled, prepare, splits, way_of
from moesim.calibration.kernels import candidates, default_sets, is_sound, kernel_sets, launches, name_of, roles_of
from moesim.calibration.moving import activation, copies, elementwise
from moesim.calibration.physics import BEATS, by_kernel, label
from moesim.calibration.prior import Prior, priors_of, with_prior
from moesim.calibration.quality import SLOW
from moesim.calibration.records import Records
from moesim.calibration.shapes_file import Shape, of_shapes
from moesim.calibration.systems import System
from moesim.costs.grid import digest, packed_grids
from moesim.costs.profile_file import ProfileSection
from moesim.costs.shapes import KINDS
from moesim.errors import BadInput
from moesim.yamlfile import validate

JOBS: Final = 2
COARSE: Final = 2.0  # fineness of fits that are asked about what no row says
HELD_ROWS: Final = 25_000  # that fits see from which shapes are held out, and from which whole widths or ranges
WIDE_ROWS: Final = 12_000
TOO_FEW: Final = 40  # rows of a kernel without a prior: a form has four numbers or more, a grid dozens


@dataclass(frozen=True)
class FittedProfile:
    """A profile that has not been written yet; packed: the file of its grids; remarks: what was left out, and why."""

    section: Mapping[str, Any]
    packed: bytes
    remarks: tuple[str, ...]

    def write(self, out: Path) -> None:
        """Both files, each whole or not at all, the grids first; of a pair that a crash tore apart the YAML file does
        not know the other. Raises BadInput where the result is no profile, before anything that is there is touched.
        """
        validate(ProfileSection, self.section, lambda keys: f"fitted profile {'.'.join(map(str, keys))}")
        described, grids = files_of(out)
        text = yaml.safe_dump(self.section, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        atomic.write(grids, self.packed)
        atomic.write(described, text)


def files_of(out: Path) -> tuple[Path, Path]:
    """OUT.yaml and OUT.parquet; a suffix of theirs is understood. Raises BadInput where they cannot be files."""
    base = out.with_suffix("") if out.suffix in {".yaml", ".yml", ".parquet"} else out
    if base.name in {"", ".."}:
        raise BadInput("is no name of a profile", where=out, way_out="-o my-gpu")
    files = base.with_name(f"{base.name}.yaml"), base.with_name(f"{base.name}.parquet")
    for file in files:
        if file.is_dir():
            raise BadInput("is a folder", where=file, way_out="another name")
    return files


def fit_profile(
    records: Records, system: System, exclude: frozenset[Shape] = frozenset(), base: Path | None = None,
    prior: str = "",
) -> FittedProfile:  # fmt: skip
    """A profile of the records; with a `base`, that profile with the roles that the records play fitted anew, all else
    as it stands there. prior: a shipped profile that kernels with few rows may start from, "" for none.
    Raises BadInput where the records hold no kernel of any role.
    """
    labelled = label(records, system)
    labelled = labelled.where(~of_shapes(labelled, exclude))
    parts = [part for part in map(_plain, by_kernel(labelled)) if len(part)]
    able = [(part, way_of(part)) for part in parts if roles_of(part)[0]]
    could = candidates([part for part, way in able if way])
    sets = kernel_sets(could)
    if not sets:
        told = "; ".join(_remarks(able, {}))
        raise BadInput(
            told or "the records hold no GEMM, experts or attention of a known backend",
            way_out="records of gemm, grouped_gemm or attention, of two shapes or sizes and more",
        )
    wanted = {name for roles in sets.values() for name in roles.values()}
    chosen = {name_of(part): (part, way) for part, way in able if way and name_of(part) in wanted}
    with ProcessPoolExecutor(min(JOBS, os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        jobs = (prepare(part, system.peaks(str(part["dtype"][0]))) for part, _ in chosen.values())
        ways = (way for _, way in chosen.values())
        before = [priors_of(part, prior, system) if prior else [] for part, _ in chosen.values()]
        done = dict(zip(chosen, pool.map(_fit_one, jobs, ways, before), strict=True))
    sections = {name: _section(*chosen[name], system, *found) for name, found in done.items()}
    judged = {name: found.shape for name, (_, found) in done.items()}
    heldout = {op: pooled(_of_op(judged, op)).section() for op in sorted({name.partition("/")[0] for name in judged})}
    exchanged = {name: found.section() for name, found in communication.held_out_errors(parts, system).items()}
    grids = {name: one.grid for name, (one, _) in done.items()}
    defaults = default_sets(could) or {"": next(iter(sets))}
    profile = _profile(records, system, sets, sections, digest(packed_grids(grids)))
    profile |= {"default_kernels": defaults, "heldout": heldout, "heldout_communication": exchanged}
    profile |= {"communication": communication.section(records, system, exchanged)}
    remarks = [*_remarks(able, chosen), *_rests(sections), *communication.untold(records), *copies(labelled)]
    remarks += _unfused(profile)
    remarks += [f"{name}: a launch costs {seconds * 1e6:.1f} us more in eager mode than in a graph"
                for name, seconds in launches([part for part, _ in able]).items()]  # fmt: skip
    if base is not None:
        profile, grids = added(base, profile, grids)
    if prior:
        profile, grids, lent = borrowed(profile, grids, prior, system.device)
        remarks += [lent] if lent else []
    return FittedProfile(profile, packed_grids(grids), tuple(remarks))


def _remarks(able: list[tuple[Records, str]], chosen: Mapping[str, tuple[Records, str]]) -> Iterator[str]:
    """Kernels that could play a role and were left out for want of rows, or for another version of themselves."""
    for part, way in able:
        name, version = name_of(part), part["version"][0]
        if not way:
            yield f"left out: {name} {version}: {len(part.usable)} sound rows of a single shape and size"
        elif not is_sound(part):
            yield f"left out: {name} {version}: {_slow(part)} of {len(part)} rows are slow without reason"
        elif name in chosen and part is not chosen[name][0]:
            yield f"left out: {name} {version}: {chosen[name][0]['version'][0]} of the same kernel is fitted"


def _rests(sections: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Which kernels start from another's, and which have too few rows to be more than a guess."""
    for name, one in sections.items():
        if "prior" in one:
            yield f"{name}: {one['rows']} rows correct {one['prior']}"
        elif one["rows"] < TOO_FEW:
            yield f"too few rows: {name} rests on {one['rows']}, and on nothing else"


def _unfused(profile: Mapping[str, Any]) -> list[str]:
    """What is said where experts are bare GEMMs and nobody timed what lies between them."""
    bare = sorted(name for name, one in profile["operators"].items() if one["bare"])
    if not bare or "activation" in profile:
        return []
    return [f"activation: not measured, assumed to be as other elementwise kernels ({', '.join(bare)})"]


def _of_op(errors: Mapping[str, Errors], op: str) -> list[Errors]:
    return [one for name, one in errors.items() if name.partition("/")[0] == op]


def _plain(records: Records) -> Records:
    """Without sliding windows, which no cost model is asked for."""
    return records.where(records["window"] == 0)


class Judged(NamedTuple):
    """Errors of one kernel on shapes it had not seen; with whole widths left out; and with whole ranges left out, so
    beyond its hull: None where it knows too few. prior: the kernel that it starts from.
    """

    shape: Errors
    width: Errors | None
    beyond: Errors | None
    prior: str = ""


def _fit_one(prepared: Prepared, way: str, priors: Sequence[Prior]) -> tuple[Fitted, Judged]:
    prepared = with_prior(prepared, priors)
    fitted = prepared.fit(prepared.sound)
    coarse = replace(fitted, fineness=COARSE)
    width, beyond = (
        held_out(prepared, one, coarse, WIDE_ROWS) if splits(prepared, one) else None for one in ("width", "range")
    )
    known = prepared.prior.name if prepared.prior else ""
    return fitted, Judged(held_out(prepared, way, fitted, HELD_ROWS), width, beyond, known)


def _slow(records: Records) -> int:
    return sum(len(records.of(label=name)) for name in SLOW)


def _section(records: Records, way: str, system: System, fitted: Fitted, judged: Judged) -> dict[str, Any]:
    """One operator of the profile's YAML."""
    errors = judged.shape
    kind = KIND[str(records["op"][0])]
    form, peaks, beats = fitted.form, system.peaks(str(records["dtype"][0])), len(records.of(label=BEATS))
    facts = {name: str(records[name][0]) for name in ("op", "dtype", "cache_dtype", "kernel", "backend", "version")}
    hull = {
        n: [_short(2**low), _short(2**high)]
        for n, (low, high) in zip(KINDS[kind].coordinates, fitted.hull, strict=True)
    }
    return facts | {
        "kind": kind, "bare": bool(records["matrices"][0] == 1), "launch": f"{form.launch * 1e6:.4g} us",
        "flops_per_second": f"{form.flops_per_second / 1e12:.5g} TFLOP/s",
        "bytes_per_second": f"{form.bytes_per_second / 1e9:.5g} GB/s", "norm": _short(form.norm),
        "each": [f"{seconds * 1e12:.5g} ps" for seconds in form.each], "tile": fitted.tile, "hull": hull,
        "basis": "fitted", "rows": len(records.usable), "beats_physics": beats, "too_slow": _slow(records),
        "other_labels": len(records) - len(records.usable) - beats - _slow(records), "held_out_by": way,
        **({"prior": judged.prior} if judged.prior else {}),
        "heldout": errors.section(), "interval": [_short(end) for end in errors.interval()],
        **({"heldout_width": judged.width.section()} if judged.width else {}),
        **({"beyond": [_short(end) for end in judged.beyond.interval()]} if judged.beyond else {}),
        "peak": f"{peaks.flops / 1e12:.5g} TFLOP/s",
    }  # fmt: skip


def _profile(
    records: Records, system: System, sets: dict[str, dict[str, str]], sections: dict[str, dict[str, Any]], grids: str
) -> dict[str, Any]:  # fmt: skip
    raw = system.raw
    sources = sorted({str(text).rpartition(" ")[0] or str(text) for text in records["provenance"]})
    kept = ("families", "backward", "backward_source", "host", "notes")
    return {
        "moesim_profile": 4, "name": system.name, "device": system.device.name,
        "device_class": str(records["device_class"][0]), "source": "; ".join(sources),
        "default_kernels": {}, "kernels": sets, "operators": sections, "grids": grids,
        "memory_bandwidth": f"{system.device.memory_bandwidth / 1e9:.6g} GB/s", "cache": f"{system.cache} B",
        "elementwise": elementwise(records, system),
        **({"activation": fused} if (fused := activation(records, system)) else {}),
        **{name: raw[name] for name in kept},
        **({"sustained": system.facts.sustained.model_dump()} if system.facts.sustained else {}),
    }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.4g}")
