"""Context parallelism: each rank has a slice of every sequence, and keys and values go round the ring of ranks.

A rank attends to the block that it has while the next one comes, so that an attention layer is longer by what a hop
takes beyond a block's share of the core. Backward, gradients of keys and values go along with them. Source: Ring
Attention (Liu et al. 2023, arXiv 2310.01889), as Megatron-LM's --cp-comm-type p2p has it, slices of equal work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.layout import Spread
from moesim.models import Attention
from moesim.models.mixer import Mixer
from moesim.network import Fabric, Group
from moesim.network.flows import Flows

Floats = npt.NDArray[np.float64]
BF16: Final = 2
KERNEL: Final = "nccl"


@dataclass(frozen=True, eq=False)
class ContextRing:
    """`ranks` share each sequence, `tensor` apart; group: some whole rings, which send at once as all others do."""

    ranks: int
    tensor: int
    group: Group
    fabric: Fabric

    def seen(self, core: Floats, kept: int) -> Floats:
        """core float64[R] seconds of a layer's attention; kept: bytes of a rank's slice that go round -> float64[R]
        seconds that the core doesn't hide.
        """
        hops = self.ranks - 1
        return np.asarray(hops * np.maximum(self.hop(kept) - core / self.ranks, 0.0))

    def hop(self, kept: int) -> float:
        """Seconds until every rank has the block of the one before it."""
        return self.fabric.alone(self.fabric.coflow(KERNEL, Flows.between(self.group, kept * self._next), self.group))

    @cached_property
    def _next(self) -> npt.NDArray[np.int64]:
        """int64[R, R]: 1 from each rank to the next of its ring."""
        lane = np.arange(len(self.group.devices))
        ring, place = lane // (self.ranks * self.tensor), lane // self.tensor % self.ranks
        after = (ring * self.ranks + (place + 1) % self.ranks) * self.tensor + lane % self.tensor
        found = np.zeros((len(lane), len(lane)), dtype=np.int64)
        found[lane, after] = 1
        return found


def key_value_bytes(spread: Spread, mixer: Mixer, tokens: int) -> int:
    """Of so many tokens on one rank of a tensor group, of latent attention with the latents projected up; 0 where
    nothing attends.
    """
    if not isinstance(mixer, Attention):
        return 0
    latent = mixer.kind == "mla"
    heads = mixer.num_heads // spread.tensor if latent else spread.kv_heads(mixer)
    return BF16 * tokens * heads * (mixer.query_head_dim + mixer.v_head_dim)
