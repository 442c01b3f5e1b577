"""Which player a step needs."""

from __future__ import annotations

from moesim.errors import unknown_name

FLUID_GPUS = 512  # a step of 58 layers takes the fluid network minutes beyond
MAX_OVERSUBSCRIPTION = 2.0  # beyond it port loads are far off: 0.812 of the exact makespan at 4:1 with skew (measured)
WISHES = ("fluid", "port_load")


def choose_level(
    *,
    gpus: int,
    oversubscription: float,
    collides: bool = False,
    fault_in_step: bool = False,
    shares_links: bool = False,
    loop: bool = False,
    asked: str | None = None,
) -> tuple[str, str]:
    """-> ("evaluate" | "simulate", why). asked: None (automatic), "port_load" or "fluid". Source: DESIGN sections 4, 9.

    A step by itself is played by the fluid network up to FLUID_GPUS: port loads know a GPU's arrival by its own links
    only, and a step waits for arrivals (they are 6.7 % short on `dsv3-decode-ep72`). loop: one of many steps, which
    take port loads and what `contention` adds. Raises BadInput. collides: flows may meet away from the GPUs' own links
    (Cluster.collides). shares_links: flows of another graph use the same links during the step.
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
    if loop:
        return "evaluate", "one of many steps: port loads, and what a layer played both ways adds"
    if gpus <= FLUID_GPUS:
        return "simulate", f"{gpus} GPUs, up to {FLUID_GPUS} a step is played by the fluid network"
    if collides:
        return "simulate", "flows may meet away from the GPUs' own links (ECMP, listed links, PCIe)"
    if oversubscription > MAX_OVERSUBSCRIPTION:
        return "simulate", f"oversubscription {oversubscription:g}:1 exceeds {MAX_OVERSUBSCRIPTION:g}:1"
    return "evaluate", f"{gpus} GPUs, more than the {FLUID_GPUS} up to which the fluid network is the default"
