"""Experts behind a dispatch: kernels that get their own rows only, in the layout that an all-to-all leaves them in."""

from __future__ import annotations

from typing import Final

BEHIND: Final = {
    "deepepmoe_masked": ("deepep_low_latency",),
    "deepepmoe_contiguous": ("deepep_normal",),
    "wideep_compute_cutlass": ("deepep_low_latency", "deepep_normal"),
}


def behind(kernel: str) -> tuple[str, ...]:
    """Algorithms of dispatch that the kernel stands behind; none for a kernel that sorts rows itself."""
    return BEHIND.get(kernel, ())
