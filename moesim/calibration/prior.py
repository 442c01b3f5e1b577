"""A prior for kernels that were measured at few points: the nearest shipped profile's kernel of the same operator, at
this device's rates (`costs.carried`), times a coarse and stiff correction that the few records ask for.

A correction is one more sum of grids on what is left over, so that a profile that holds it reads like any other.
Whether a prior is taken at all, and which engine's kernel it is, the held-out errors of the records decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.calibration.aiconfigurator import PACKAGE
from moesim.calibration.behind import behind
from moesim.calibration.fit_grid import fit_grid
from moesim.calibration.fit_operator import Fitted
from moesim.calibration.heldout import Prepared, held_out, splits
from moesim.calibration.kernels import name_of
from moesim.calibration.records import Records
from moesim.calibration.systems import System
from moesim.costs.carried import carry
from moesim.costs.grid import CLIP, ResidualGrid
from moesim.costs.load import device_of
from moesim.costs.profile_file import known_profiles, read_profile
from moesim.costs.shapes import KINDS, Demand
from moesim.errors import unknown_name
from moesim.hardware import Device, shipped_device

Floats = npt.NDArray[np.float64]
AUTO, NONE = "auto", "none"
FEW: Final = 2000  # sound rows from which a kernel is fitted alone
KNOTS: Final = 2.0  # fineness of a correction's grid: the coarser of the usual ones
STIFFNESS: Final = 1.0  # of a correction: between the usual ones of experts (10) and of attention (0.05)
RATES: Final = ("fp32", "bf16")  # that say with the memory's how near two devices are


@dataclass(frozen=True)
class Prior:
    """A kernel of a profile at the rates of the device that is fitted."""

    name: str
    fitted: Fitted

    @property
    def tile(self) -> int:
        """Rows that its GEMMs pad to."""
        return self.fitted.tile

    def corrected(self, kind: str, demand: Demand, seconds: Floats) -> Fitted:
        """By what these rows took, float64[rows]."""
        left = np.clip(np.log(seconds / self.fitted.seconds(demand)), -CLIP, CLIP)
        grid, _ = fit_grid(KINDS[kind]._replace(stiffness=STIFFNESS), demand.coordinates, left, KNOTS)
        hull = tuple((float(values.min()), float(values.max())) for values in demand.coordinates)
        return replace(self.fitted, grid=ResidualGrid((*self.fitted.grid.grids, *grid.grids)), hull=hull)


def prior_profile(name: str, system: System, records: Records) -> str:
    """A shipped profile's name; "auto": the nearest, for records of `calibrate measure`; "": none is wanted, or this is
    no GPU. Raises BadInput.
    """
    known = {one: path for one, path in known_profiles().items() if shipped_device(device_of(path))}
    if name not in (AUTO, NONE, *known):
        raise unknown_name("prior", name, [AUTO, NONE, *known])
    imported = any(str(one).startswith(PACKAGE) for one in set(records["provenance"]))
    if name == NONE or "bf16" not in system.device.peak_flops or (name == AUTO and imported):
        return ""
    return nearest(system.device) if name == AUTO else name


def nearest(device: Device) -> str:
    """The shipped profile of that device or of the one it is like; else of the device whose rates (fp32, bf16, memory)
    differ least, in octaves.
    """
    shipped = {name: shipped_device(device_of(path)) for name, path in known_profiles().items()}
    measured = {name: one for name, one in shipped.items() if one is not None and "bf16" in one.peak_flops}
    own = next((name for name, one in measured.items() if one.name == device.name), "")
    like = device.like if device.like in measured else ""
    return own or like or min(measured, key=lambda name: _apart(measured[name], device))


def priors_of(records: Records, profile: str, system: System) -> list[Prior]:
    """Kernels of that profile for the operator and the dtypes of records of one kernel; the one of its own name alone,
    where it has it. None where that one was measured on this very device: it may have been fitted to these records.
    """
    section, grids = read_profile(known_profiles()[profile])
    device = shipped_device(section.device)
    if device is not None and device.name != system.device.name:
        section = carry(section, device, system.device)
    elif name_of(records) in section.operators:
        return []
    wanted = tuple(str(records[name][0]) for name in ("op", "dtype", "cache_dtype"))
    found = {name: one for name, one in section.operators.items()
             if (one.op, one.dtype, one.cache_dtype) == wanted and not behind(one.kernel)}  # fmt: skip
    same = {name: one for name, one in found.items() if one.kernel == str(records["kernel"][0])}
    return [
        Prior(f"{profile}: {name}", Fitted(one.form, grids[name], one.tile, ()))
        for name, one in (same or found).items()
    ]


def with_prior(prepared: Prepared, priors: Sequence[Prior]) -> Prepared:
    """The same rows with that prior, or none, whose mean |ln(measured / predicted)| is least where whole sizes are left
    out: a profile of few rows is asked for the shapes that it knows. Many rows speak for themselves.
    """
    if int(prepared.sound.sum()) >= FEW or not splits(prepared, "size"):
        return prepared
    return min((prepared, *(replace(prepared, prior=one) for one in priors)), key=_off)


def _off(prepared: Prepared) -> float:
    found = held_out(prepared, "size")
    return float(np.mean(np.abs(found.log[found.sound])))


def _apart(one: Device, other: Device) -> float:
    """Mean square of octaves."""
    pairs = [(one.memory_bandwidth, other.memory_bandwidth)]
    shared = [rate for rate in RATES if rate in one.peak_flops and rate in other.peak_flops]
    pairs += [(one.peak_flops[rate], other.peak_flops[rate]) for rate in shared]
    return sum(math.log2(a / b) ** 2 for a, b in pairs) / len(pairs)
