"""What simulated times rest on, in sentences that a Result repeats."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.costs import CostModel
from moesim.step import CostLog


def borrowed(costs: CostModel, device: str) -> str:
    """Whose kernels are played on a device that they were not measured on, "" where they were."""
    if costs.device == device:
        return ""
    return (
        f"costs {costs.name} were measured on {costs.device} and are carried to the rates of {device}: all times are "
        "assumed"
    )


def price_notes(log: CostLog, costs: CostModel, device: str) -> Iterator[str]:
    """Costs of another device, shapes outside of what was measured, and what was assumed; after all were asked for."""
    if words := borrowed(costs, device):
        yield words
    for family in sorted(log.outside):
        if log.outside[family]:
            share = log.outside[family] / log.asked[family]
            yield f"{family}: {_percent(share)} of the queried shapes lie outside the measured hull"
    assumed = sorted(family for family, basis in log.basis.items() if basis == "assumed")
    if assumed:
        yield f"assumed, not measured: {', '.join(assumed)}"


def _percent(share: float) -> str:
    """Never 0 % of what is more than nothing."""
    return f"{share:.0%}" if share >= 0.005 else "under 1%"
