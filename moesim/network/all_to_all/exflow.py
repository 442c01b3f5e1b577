"""ExFlow: tokens travel with the expert. One all-to-all a layer and no way back: attention runs where the token is.

A token stays on the GPU of its first choice, from where the copies of the next layer are counted. With one expert per
token nothing else moves; with more the other experts' results are summed where the token stays. Nothing is merged, one
message per peer, on SMs. Every rank needs every token's context, which one all-gather per step spreads (not part of
these flows). Source: ExFlow, "Exploiting Inter-Layer Expert Affinity for Accelerating Mixture-of-Experts Model
Inference" (2024).
"""

from __future__ import annotations

from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class ExFlow(AllToAll):
    """Pairwise exchange on the way to the expert; back come only the results of further choices."""

    name = "exflow"
    travels = True
    notes = ("exflow: attention is priced where tokens began, and the all-gather of their contexts is not played",)

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Straight."""
        return (copies.pairs,)
