"""A fit of some operators joined with the profile that holds the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moesim import yamlfile
from moesim.calibration.kernels import OWN
from moesim.costs.grid import ResidualGrid, digest, packed_grids
from moesim.costs.profile_file import read_profile
from moesim.errors import BadInput

Grids = dict[str, ResidualGrid]


def added(base: Path, new: dict[str, Any], grids: Grids) -> tuple[dict[str, Any], Grids]:
    """The base's profile and grids with the new one's roles, operators and errors in place of its own of these names.

    Kernels that play no role any more are left out. Raises BadInput where the base is of another device.
    """
    section, held = read_profile(base)
    if section.device != new["device"]:
        raise BadInput(
            f"the records are of {new['device']}, the profile is of {section.device}", where=base,
            way_out="no --keep: --prior lends what the records do not play",
        )  # fmt: skip
    old = dict(yamlfile.read_yaml(base).data)
    kernels = {name: {**old["kernels"].get(name, {}), **new["kernels"].get(name, {})} for name in _sets(old, new)}
    roles = {role: name for one in reversed(kernels.values()) for role, name in one.items()}
    kernels = {
        name: {role: one.get(role, roles[role]) for role in sorted(roles) if role in one or not role.startswith(OWN)}
        for name, one in kernels.items()
    }
    played = {name for one in kernels.values() for name in one.values()}
    operators = {name: one for name, one in (old["operators"] | new["operators"]).items() if name in played}
    every = {name: grid for name, grid in (held | grids).items() if name in played}
    heldout = old["heldout"] | {op: one for op, one in new["heldout"].items() if _all_of(op, operators, new)}
    sources = "; ".join(dict.fromkeys([old["source"], new["source"]]))
    defaults = {k: v for k, v in new["default_kernels"].items() if k} or old["default_kernels"]
    joined = old | {
        "moesim_profile": new["moesim_profile"], "source": sources, "default_kernels": defaults, "kernels": kernels,
        "operators": operators, "grids": digest(packed_grids(every)), "heldout": heldout,
        **{name: new[name] for name in ("activation",) if name in new},
    }  # fmt: skip
    return joined, every


def _sets(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys([*old["kernels"], *new["kernels"]]))


def _all_of(op: str, operators: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether all kernels of an operator are new, so that its errors are theirs alone."""
    return all(name in new["operators"] for name in operators if name.partition("/")[0] == op)
