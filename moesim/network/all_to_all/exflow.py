"""ExFlow: tokens travel with the expert. One all-to-all a layer and no way back: attention runs where the token is.

Copies must be counted from where each token is, the lane of its expert in the layer before. Every rank then needs
every token's context, which one all-gather per step spreads (not part of these flows). One expert per token only: with
more there is no single place to stay. Source: ExFlow, "Exploiting Inter-Layer Expert Affinity for Accelerating
Mixture-of-Experts Model Inference" (2024).
"""

from __future__ import annotations

from moesim.errors import BadInput
from moesim.network.all_to_all.algorithm import Stages
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class ExFlow:
    """Pairwise exchange on the way to the expert, nothing back."""

    name = "exflow"
    kernel = "nccl"
    deduplicates = "none"
    phases = 1

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """One flow per pair. Raises BadInput where a token has more than one expert."""
        if copies.pairs.sum() > copies.tokens.sum():
            raise BadInput("exflow with more than one expert per token", way_out="a top-1 model, or dispatch: nccl")
        return (Flows.between(group, copies.pairs * row_bytes),)

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Nothing: the token stays."""
        return ()
