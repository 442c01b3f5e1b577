"""`load_costs`: the name in a scenario -> CostModel; and the draw of one error per family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from moesim import streams
from moesim.costs.model import CostModel
from moesim.costs.profile import load_profile
from moesim.costs.profile_file import known_profiles
from moesim.costs.roofline import Roofline
from moesim.errors import BadInput, unknown_name
from moesim.hardware import Device
from moesim.models import NVFP4

AUTO = "auto"
ALGORITHMS = ("nccl", "deepep_normal", "deepep_low_latency")


def load_costs(
    name_or_path: str, device: Device, kernels: str | None = None, *, precision: str = "", dispatch: str = "",
    width: tuple[int, int] | None = None, where: str = "", fp4_block: int = NVFP4,
) -> CostModel:  # fmt: skip
    """The word "auto" (the shipped profile of the device, or of the one that it is like), "roofline", a shipped
    profile's name, or a profile file; and one of the profile's kernel sets, None: its default for experts of that
    precision. dispatch: the all-to-all before the experts, whose own kernels answer where they were measured at that
    width (hidden, inter). fp4_block: see Roofline. Raises BadInput with the known names.
    """
    if name_or_path == "roofline":
        return Roofline(device, ALGORITHMS, fp4_block)
    path = profile_of(device, where) if name_or_path == AUTO else find_profile(name_or_path, where=where)
    assert path is not None
    return load_profile(
        path, device, kernels, precision=precision, dispatch=dispatch, width=width, where=where
    )  # fmt: skip


def find_profile(name_or_path: str, *, where: str = "") -> Path | None:
    """A path as it is, or the file of a shipped name; None for "roofline", and for "auto", which a device decides.
    Raises BadInput with the known names.
    """
    if name_or_path in ("roofline", AUTO):
        return None
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    known = known_profiles()
    if name_or_path not in known:
        raise unknown_name("cost profile", name_or_path, [AUTO, "roofline", *known], where=where)
    return known[name_or_path]


def profile_of(device: Device, where: str = "") -> Path:
    """The shipped profile that was measured on `device`, or else on what it is like. Raises BadInput with the devices
    that have one.
    """
    known = known_profiles()
    found = {device_of(path): path for path in known.values()}
    if device.like and device.name not in found:
        if device.like not in known:
            raise unknown_name("cost profile", device.like, known, where=f"the topology's device {device.name}: like")
        return known[device.like]
    if device.name not in found:
        measured = ", ".join(f"{path.stem} ({name})" for name, path in found.items())
        raise BadInput(
            f"no shipped profile was measured on {device.name}",
            where=where or "costs",
            way_out=f"name one whose kernels you assume at this device's rates, {measured}; or costs: roofline; or "
            "`moesim calibrate measure`",
        )
    return found[device.name]


def device_of(path: Path) -> str:
    """The `device:` of a profile, from its first lines: reading all of every profile would take seconds."""
    with path.open(encoding="utf-8") as lines:
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("device:"))


def error_draw(spreads: Mapping[str, float], seed: int, apart: str = "") -> dict[str, float]:
    """error family -> standard deviation of the logarithm; one log-normal factor each, for all shapes of a run. apart:
    draws under another name are independent, as the errors of another device's kernels are.
    """
    names = ("costs", "error", *([apart] if apart else []))
    return {
        family: math.exp(sigma * float(streams.stream(seed, *names, family).standard_normal()))
        for family, sigma in sorted(spreads.items())
    }
