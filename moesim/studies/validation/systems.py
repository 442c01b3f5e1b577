"""Systems as tables of measurements name them: a shipped topology, or its GPU in an engine's or a vendor's spelling."""

from __future__ import annotations

import re
from typing import Final

from moesim.errors import unknown_name
from moesim.hardware import known_topologies

TOPOLOGIES: Final = {  # GPU -> the shipped box or rack of it
    "a100": "dgx-a100", "a100_40gb": "dgx-a100-40gb", "h100": "dgx-h100", "h100_pcie": "h100-pcie",
    "h100_nvl": "h100-nvl", "h200": "hgx-h200", "h20": "h20", "h800": "hgx-h800", "b200": "dgx-b200", "b300": "b300",
    "gb200": "gb200-nvl72", "gb300": "gb300-nvl72", "l40s": "l40s-pcie", "rtx_pro_6000": "rtx-pro-6000-pcie",
}  # fmt: skip


def topology_of(system: str) -> str:
    """The shipped topology of a system: its own name, or as in "h100_sxm", "DGX-H100", "gb200_nvl72".

    Raises BadInput.
    """
    if system in known_topologies():
        return system
    words = re.sub(r"[-\s]", "_", system.lower())
    gpu = re.sub(r"^(dgx|hgx)_|_(sxm\d?|nvl72)$", "", words)
    if gpu not in TOPOLOGIES:
        raise unknown_name("system", system, TOPOLOGIES)
    return TOPOLOGIES[gpu]
