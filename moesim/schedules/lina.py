"""Lina: Tutel's parts, and all-to-alls before gradients: these are cut in slices that run where no all-to-all waits.

A slice is queued where it is done before the next all-to-all has its rows; what finds no place follows the last
micro-batch. Source: Li et al., "Accelerating Distributed MoE Training and Inference with Lina" (USENIX ATC 2023):
all-to-all has priority over all-reduce, both in micro-operations.
"""

from __future__ import annotations

from moesim.schedules.tutel import Tutel


class Lina(Tutel):
    """Gradients of a layer in equal slices, one stream of transfers."""

    name, trains, slices = "lina", True, 8
