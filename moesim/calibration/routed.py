"""Routed tokens for measurements: who sends how many rows to which expert, from real traces where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from moesim import shipped
from moesim.errors import BadInput, unknown_name
from moesim.routing import Balanced, Replay, RoutingSource, RoutingTrace, Sampled, Transplant, digest_of, read_trace

Ints = npt.NDArray[np.int64]
LAYERS = 8  # of the model that a measured layer is taken from
TRACES = "workloads/routing"


@dataclass(frozen=True)
class Gate:
    """The routing shape of a layer that is measured; see RoutingShape."""

    num_experts: int
    top_k: int
    name: str = "calibration"
    num_groups: int = 1
    topk_groups: int = 1
    hidden_size: int = 0  # nothing is priced here

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """LAYERS of them."""
        return tuple(range(LAYERS))


@dataclass(frozen=True)
class Routed:
    """expert int64[world, tokens, k]: the experts of each rank's tokens; experts lie on ranks in equal blocks."""

    expert: Ints
    num_experts: int

    @property
    def world(self) -> int:
        """Ranks."""
        return len(self.expert)

    @property
    def rows(self) -> Ints:
        """int64[source, expert]."""
        count = [np.bincount(one.reshape(-1), minlength=self.num_experts) for one in self.expert]
        return np.stack(count).astype(np.int64)

    @property
    def split_matrix(self) -> tuple[tuple[int, ...], ...]:
        """[source][destination] rows."""
        found = self.rows.reshape(self.world, self.world, -1).sum(axis=2)
        return tuple(tuple(source) for source in found.tolist())

    @property
    def group_sizes(self) -> tuple[tuple[int, ...], ...]:
        """[rank][local expert] rows after dispatch."""
        found = self.rows.sum(axis=0).reshape(self.world, -1)
        return tuple(tuple(rank) for rank in found.tolist())


def route(
    distribution: str, experts: int, top_k: int, world: int, tokens: int, *, layer: int = 0, start: int = 0,
    seed: int = 0,
) -> Routed:  # fmt: skip
    """`tokens` tokens on each of `world` ranks; request numbers begin at `start`, so other starts are other tokens.

    distribution: "balanced", "trace:NAME" (a shipped trace, transplanted where its shape differs) or "sampled:NAME".
    Raises BadInput for an unknown one, or a trace that cannot be carried over, or experts that do not divide.
    """
    if experts % world:
        raise BadInput(f"{experts} experts do not divide over {world} ranks")
    source = _source(distribution, Gate(experts, top_k), seed)
    ticket = np.arange(world * tokens, dtype=np.int64)
    request, position = start + ticket // 64, ticket % 64
    expert = source.experts(layer % LAYERS, request, position).astype(np.int64)
    return Routed(expert.reshape(world, tokens, top_k), experts)


@lru_cache(maxsize=16)
def _source(distribution: str, gate: Gate, seed: int) -> RoutingSource:
    kind, _, name = distribution.partition(":")
    if kind == "balanced" and not name:
        return Balanced(gate, seed)
    if kind == "sampled":
        return Sampled(name, gate, seed)
    if kind == "trace":
        trace = _trace(name)
        return Replay(trace, gate, seed) if trace.header.digest == digest_of(gate) else Transplant(trace, gate, seed)
    raise unknown_name("routing", distribution, ["balanced", "trace:NAME", "sampled:NAME"])


@lru_cache(maxsize=4)
def _trace(name: str) -> RoutingTrace:
    known = shipped.names(TRACES, ".parquet")
    if name not in known:
        raise unknown_name("routing trace", name, known)
    return read_trace(known[name])
