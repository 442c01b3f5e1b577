"""Which player a step needs."""

from __future__ import annotations

from moesim.errors import unknown_name

MAX_OVERSUBSCRIPTION = 2.0  # port loads are 0.9977 of the exact makespan at 2:1 and 0.812 at 4:1 with skew (measured)
WISHES = ("fluid", "port_load")


def choose_level(
    *,
    oversubscription: float,
    collides: bool = False,
    fault_in_step: bool = False,
    shares_links: bool = False,
    asked: str | None = None,
) -> tuple[str, str]:
    """-> ("evaluate" | "simulate", why). asked: None (automatic), "port_load" or "fluid". Source: DESIGN section 4.

    Raises BadInput. collides: flows may meet away from the GPUs' own links (Cluster.collides), which a GPU's arrival in
    port loads does not see. shares_links: flows of another graph use the same links during the step.
    """
    if asked not in (None, *WISHES):
        raise unknown_name("network level", asked, WISHES)
    if asked == "fluid":
        return "simulate", "the scenario asks for the fluid network"
    if asked == "port_load":
        return "evaluate", "the scenario asks for port loads"
    if fault_in_step:
        return "simulate", "a fault falls into the step"
    if shares_links:
        return "simulate", "another graph's flows share its links"
    if collides:
        return "simulate", "flows may meet away from the GPUs' own links (ECMP, listed links, PCIe)"
    if oversubscription > MAX_OVERSUBSCRIPTION:
        return "simulate", f"oversubscription {oversubscription:g}:1 exceeds {MAX_OVERSUBSCRIPTION:g}:1"
    return "evaluate", f"oversubscription {oversubscription:g}:1, no fault and nobody else on the links"
