"""What joins nodes, one kind a file: who hangs on which switch, the links between switches, the way between two."""

from moesim.hardware.fabrics.registry import KINDS, Ground, Kind, Wiring, kind_of

__all__ = ["KINDS", "Ground", "Kind", "Wiring", "kind_of"]
