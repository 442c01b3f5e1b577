"""`load_costs`: the name in a scenario -> CostModel; and the draw of one error per family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from moesim import streams
from moesim.costs.model import CostModel
from moesim.costs.profile import known_profiles, load_profile
from moesim.costs.roofline import Roofline
from moesim.errors import unknown_name
from moesim.hardware import Device

ALGORITHMS = ("nccl", "deepep_normal", "deepep_low_latency")


def load_costs(
    name_or_path: str, device: Device, kernels: str | None = None, *, precision: str = "", dispatch: str = "",
    where: str = "",
) -> CostModel:  # fmt: skip
    """The word "roofline", a shipped profile's name, or a profile file; and one of the profile's kernel sets, None: its
    default for experts of that precision. dispatch: the all-to-all before the experts, whose own kernels may answer.
    Raises BadInput with the known names.
    """
    if name_or_path == "roofline":
        return Roofline(device, ALGORITHMS)
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        known = known_profiles()
        if name_or_path not in known:
            raise unknown_name("cost profile", name_or_path, ["roofline", *known], where=where)
        path = known[name_or_path]
    return load_profile(path, device.name, kernels, precision=precision, dispatch=dispatch, where=where)


def error_draw(spreads: Mapping[str, float], seed: int) -> dict[str, float]:
    """error family -> standard deviation of the logarithm; one log-normal factor each, for all shapes of a run."""
    return {
        family: math.exp(sigma * float(streams.stream(seed, "costs", "error", family).standard_normal()))
        for family, sigma in sorted(spreads.items())
    }
