"""RouterInput: what a router may look at. Everything about a token is a lookup, so that no batch changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput
from moesim.routing.routers.noise import normals, uniforms

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
State = npt.NDArray[np.float64]
Column = Callable[[int, Ints, Ints], npt.NDArray[Any]]  # (layer, request [T], position [T]) -> [T, ...]


LACKING: Final = {  # column -> what it is called, and where it comes from
    "logits": ("logits", "a trace with logits (tiny-moe-logits, or moesim trace logits), or routing.generator"),
    "token_id": ("token_id", "a trace with token ids, or routing.generator"),
    "recorded": ("recorded choices", "routing.trace"),
    "recorded_weight": ("recorded_weight", "routing.trace with weights"),
}


@dataclass(frozen=True)
class RouterInput:
    """One layer's batch: request, position, rank int64[T]; rank is where the token comes from.

    `columns` name -> lookup (layer, request, position): logits float32[T, E], token_id, domain int64[T], importance
    float32[T], recorded uint16[T, k], recorded_weight float32[T, k]. expert_rank int64[E] and rank_node int64[R] say
    where experts and ranks are. `state` is what the router learned before, `replaced` the logits of a transform.
    hidden: width of a token's row; training: effects that exist in training only act.
    """

    experts: int
    top_k: int
    request: Ints
    position: Ints
    rank: Ints
    columns: Mapping[str, Column]
    expert_rank: Ints
    rank_node: Ints
    groups: int = 1
    topk_groups: int = 1
    hidden: int = 0
    training: bool = True
    layer: int = 0
    layers: int = 1
    step: int = 0
    seed: int = 0
    state: State | None = None
    source: str = "routing"
    replaced: Floats | None = None

    @property
    def tokens(self) -> int:
        """T, the tokens of the batch."""
        return len(self.request)

    @property
    def expert_node(self) -> Ints:
        """int64[E]: the node of each expert."""
        return self.rank_node[self.expert_rank]

    @cached_property
    def logits(self) -> Floats:
        """float32[T, E]. Raises BadInput where there are none, or one is not a finite number."""
        return self.column("logits") if self.replaced is None else self.replaced

    def column(
        self, name: str, *, layer: int | None = None, request: Ints | None = None, position: Ints | None = None
    ) -> npt.NDArray[Any]:
        """A column of the batch's tokens, or of another layer, request or position. Raises BadInput."""
        if name not in self.columns:
            raise lacks(self.source, name)
        where = self.layer if layer is None else layer
        found = self.columns[name](
            where, self.request if request is None else request, self.position if position is None else position
        )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            token = int(np.argwhere(~np.isfinite(found))[0][0])
            raise BadInput(
                f"step {self.step}, layer {where}, token {token}: {name} is not a finite number", where=self.source
            )
        return found

    def with_logits(self, logits: Floats) -> RouterInput:
        """The same batch with other logits; lookups of other layers and positions stay as they were."""
        return replace(self, replaced=logits.astype(np.float32, copy=False))

    def without_state(self) -> RouterInput:
        """The same batch for an inner router, where the state is the outer one's."""
        return replace(self, state=None)

    def normal(self, name: str, width: int, *, layer: int | None = None) -> Floats:
        """float32[T, width] standard normal, a pure function of (seed, name, layer, request, position)."""
        return normals(self.key(name, layer), width, self.request, self.position)

    def uniform(self, name: str) -> npt.NDArray[np.float64]:
        """float64[T] in [0, 1), a pure function of (seed, name, layer, request, position)."""
        return uniforms(self.key(name), self.request, self.position)

    def tickets(self, width: int, rows: Ints | None = None) -> npt.NDArray[np.uint64]:
        """uint64[n, width]: what decides between equal scores of tokens `rows` (default: all); lower wins.

        A keyed hash, since a tie that goes to the lowest id becomes load of that expert, rank or token.
        """
        request, position = (self.request, self.position) if rows is None else (self.request[rows], self.position[rows])
        return streams.hash_ints(self.key("ties"), request[:, None], position[:, None], np.arange(width))

    def request_uniform(self, name: str) -> npt.NDArray[np.float64]:
        """float64[T] in [0, 1), the same for all tokens and layers of a request."""
        return uniforms(self.key(name, 0), self.request, 0)

    def generator(self, *name: str | int) -> np.random.Generator:
        """The named stream of what is the same for all tokens; put layer or step in the name where they matter."""
        return streams.stream(self.seed, "router", *name)

    def key(self, name: str, layer: int | None = None) -> int:
        """A key for hashes and noise of one purpose."""
        return streams.key("router", self.seed, name, self.layer if layer is None else layer)


def lacks(source: str, name: str) -> BadInput:
    """The refusal of a router whose input has no such column."""
    told, way_out = LACKING.get(name, (name, "routing.generator, without a trace"))
    return BadInput(f"the router needs {told}, and it has none", where=source, way_out=way_out)
