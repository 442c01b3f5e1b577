"""Roles that records do not play, played by the kernels of another profile at this device's rates, so that a run of
one's own is enough for any model. All of it is assumed, with intervals as wide as carried profiles were off.
"""

from __future__ import annotations

import math
from typing import Any, Final

from moesim import yamlfile
from moesim.calibration.kernels import OWN
from moesim.costs.carried import FAR, NEAR, carry
from moesim.costs.grid import ResidualGrid, digest, packed_grids
from moesim.costs.profile_file import OperatorSection, ProfileSection, known_profiles, read_profile
from moesim.hardware import Device, shipped_device

TENTH: Final = 1.2816  # standard deviations from the middle to either end of an 80 % interval
Grids = dict[str, ResidualGrid]


def borrowed(profile: dict[str, Any], grids: Grids, name: str, device: Device) -> tuple[dict[str, Any], Grids, str]:
    """The profile and its grids with the roles that shipped profile `name` plays and it does not, and a sentence on
    them, "" where there is none.
    """
    path = known_profiles()[name]
    section, held = read_profile(path)
    measured = shipped_device(section.device)
    same = measured is None or measured.name == device.name
    carried = section if same or measured is None else carry(section, measured, device)
    off = 0.0 if same else NEAR if device.like == name else FAR
    missing = {role: kernel for role, kernel in _played(carried).items()
               if not any(_plain(role) in roles for roles in profile["kernels"].values())}  # fmt: skip
    if not missing:
        return profile, grids, ""
    raw = yamlfile.read_yaml(path).data["operators"]
    lent = {one: raw[one] | _at(carried.operators[one], off) for one in missing.values()}
    every = grids | {one: held[one] for one in lent}
    kernels = {engine: {**missing, **roles} for engine, roles in profile["kernels"].items()}
    joined = profile | {"operators": profile["operators"] | lent, "kernels": kernels,
                        "grids": digest(packed_grids(every))}  # fmt: skip
    return joined, every, f"not measured, assumed to be {name}'s at this device's rates: {', '.join(sorted(missing))}"


def _played(section: ProfileSection) -> dict[str, str]:
    """role -> operator, of the set that is the default for the role's precision; modules are an engine's own."""
    first = next(iter(section.default_kernels.values()))
    found: dict[str, str] = {}
    for role in dict.fromkeys(role for roles in section.kernels.values() for role in roles):
        chosen = section.default_kernels.get(_plain(role).rpartition(".")[2], first)
        if role in section.kernels[chosen] and not role.startswith(OWN):
            found[role] = section.kernels[chosen][role]
    return found


def _plain(role: str) -> str:
    """Without the dispatch that it stands behind: own experts answer for those too."""
    return role.partition("@")[0]


def _at(one: OperatorSection, off: float) -> dict[str, Any]:
    low, high = (
        math.copysign(math.hypot(end, TENTH * off), sign) for end, sign in zip(one.interval, (-1, 1), strict=True)
    )
    return {
        "flops_per_second": f"{one.flops_per_second / 1e12:.5g} TFLOP/s", "basis": "assumed",
        "bytes_per_second": f"{one.bytes_per_second / 1e9:.5g} GB/s", "peak": f"{one.peak / 1e12:.5g} TFLOP/s",
        "interval": [float(f"{low:.4g}"), float(f"{high:.4g}")],
    }  # fmt: skip
