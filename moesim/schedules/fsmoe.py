"""FSMoE: Tutel's parts, each pass cut for itself, nodes inside and out on streams of their own, gradients in the gaps.

Rows that the GPUs of a node hand each other (experts spread over a node, all-to-alls in two levels) do not wait for
transfers between nodes, nor these for them. Of the gradients of dense layers each gap between transfers of the backward
pass takes what fits. Source: Pan et al., "FSMoE: A Flexible and Scalable Training System for Sparse Mixture-of-Experts
Models" (2025, arXiv 2501.10714).
"""

from __future__ import annotations

from moesim.schedules.tutel import Tutel


class FSMoE(Tutel):
    """Of gradients as much as a gap holds, down to what is worth a start-up."""

    name, trains, slices = "fsmoe", True, 0
    apart = True
