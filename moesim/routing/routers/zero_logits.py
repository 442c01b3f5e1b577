"""Logits of experts that compute nothing, on the scale of the real ones."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from moesim import streams
from moesim.routing.routers.input import Floats, RouterInput
from moesim.yamlfile import Section

OTHERS = 1 << 42  # requests from here on are in no step


class ZeroLogits(Section):
    """Where the logits of zero-compute experts lie, and how far apart. `matched` is the scale of the real experts:
    their mean for the token, and as many deviations from it as real experts show at another token, so that with as
    many zero-compute experts as real ones each half of the choices is real.
    """

    mean: Literal["matched"] | Annotated[float, Field(ge=-1000, le=1000)] = Field(
        "matched", description="mean logit of a zero-compute expert; matched: the token's mean over real experts"
    )
    std: Literal["matched"] | Annotated[float, Field(ge=0, le=1000)] = Field(
        "matched", description="their standard deviation; matched: the deviations that real experts have"
    )

    def drawn(self, given: RouterInput, width: int, real: Floats, *, layer: int | None = None) -> Floats:
        """real [T, E] logits of this layer, or of `layer` -> float32[T, width] of zero-compute experts."""
        mean = real.mean(axis=1, keepdims=True) if self.mean == "matched" else np.float32(self.mean)
        if self.std == "matched":
            spread = self._matched(given, width, given.layer if layer is None else layer)
        else:
            spread = np.float32(self.std) * given.normal("zero-compute", width, layer=layer)
        found: Floats = (mean + spread).astype(np.float32)
        return found

    def _matched(self, given: RouterInput, width: int, layer: int) -> Floats:
        """float32[T, width]: deviations from their mean of real logits at other tokens, another one for every E.

        Experts are met from a different one on at each token, so that no zero-compute expert is one popular expert.
        """
        blocks, column = [], np.arange(given.experts)
        for block in range(-(-width // given.experts)):
            ticket = streams.hash_ints(given.key(f"zero-compute {block}", layer), given.request, given.position)
            request, position = OTHERS + (ticket >> np.uint64(24)).astype(np.int64), ticket % np.uint64(4096)
            other = given.column("logits", layer=layer, request=request, position=position.astype(np.int64))
            order = (column + (ticket % np.uint64(given.experts)).astype(np.int64)[:, None]) % given.experts
            blocks.append(np.take_along_axis(other - other.mean(axis=1, keepdims=True), order, axis=1))
        found: Floats = np.concatenate(blocks, axis=1)[:, :width]
        return found


MATCHED = ZeroLogits()
