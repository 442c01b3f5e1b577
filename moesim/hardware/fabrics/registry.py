"""Name -> kind of fabric."""

from __future__ import annotations

from typing import Final

from moesim.hardware.fabrics import dragonfly, rail_only, three_tier, torus, two_tier
from moesim.hardware.fabrics.kind import Ground, Kind, Wiring

__all__ = ["KINDS", "Ground", "Kind", "Wiring", "kind_of"]

KINDS: Final[dict[str, Kind]] = {
    "rails": two_tier.RAILS,
    "leaves": two_tier.LEAVES,
    "three_tier": three_tier.KIND,
    "dragonfly": dragonfly.KIND,
    "torus": torus.KIND,
    "rail_only": rail_only.KIND,
}


def kind_of(name: str) -> Kind:
    """The schema knows the same names."""
    return KINDS[name]
