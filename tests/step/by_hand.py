"""A model small enough to count by hand, and what a step of it is made of: seconds by task, bytes by transfer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.engine import Join
from moesim.routing.sources.source import Experts, PerToken, Tokens
from moesim.step import StepPlan, lower
from moesim.studies.build import Built, build
from moesim.studies.load import load_data

HBM, PEAK, PEAK_FP8 = 3.35e12, 989.4e12, 1978.9e12  # H100 SXM datasheet, dense
H, HEADS, KV, D, VOCAB = 1024, 16, 4, 64, 6000
EXPERTS, TOP, WIDTH, SHARED, DENSE = 8, 2, 512, 768, 4096
MODEL: dict[str, Any] = {
    "name": "hand", "hidden_size": H, "num_layers": 2, "dense_layers": 1, "vocab_size": VOCAB,
    "attention": {"num_heads": HEADS, "num_kv_heads": KV, "head_dim": D}, "num_experts": EXPERTS, "top_k": TOP,
    "expert_intermediate": WIDTH, "shared_intermediate": SHARED, "dense_intermediate": DENSE,
}  # fmt: skip
DATA: dict[str, Any] = {
    "name": "hand", "model": MODEL, "costs": "roofline", "cluster": {"topology": "dgx-h100", "nodes": 1},
    "batch": {"phase": "decode", "tokens_per_gpu": 8, "context": 100}, "routing": {"balanced": True},
    "parallel": {"data_parallel_size": 4, "expert_parallel_size": 4},
}  # fmt: skip


EVEN = [[0, 2], [4, 6], [1, 3], [5, 7]]  # request r takes EVEN[r % 4]: equal rows for every expert


class Chosen(PerToken):
    """Every token of request r takes experts `table[r % len(table)]`."""

    name, basis, notes = "chosen", "balanced, assumed", ()
    moe_layers, num_experts, top_k = 1, EXPERTS, TOP

    def __init__(self, table: list[list[int]]) -> None:
        self.table = np.array(table, dtype=np.uint16)

    def experts(self, layer: int, request: Tokens, position: Tokens) -> Experts:
        """As in RoutingSource."""
        found: Experts = self.table[request % len(self.table)]
        return found


@dataclass(frozen=True)
class HandStep:
    """A lowered step, asked by name of task."""

    plan: StepPlan
    built: Built

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph", lower(self.plan, self.built.batches).graph)

    def tasks(self, name: str, layer: int | None = None) -> list[int]:
        """Tasks of that name, in program order."""
        graph = self.graph  # type: ignore[attr-defined]
        return [t for t, n in enumerate(graph.name) if n == name and layer in (None, int(graph.layer[t]))]

    def seconds(self, name: str, layer: int | None = None) -> npt.NDArray[np.float64]:
        """float64[lanes] of the first task of that name."""
        graph, task = self.graph, self.tasks(name, layer)[0]  # type: ignore[attr-defined]
        return np.asarray(graph.lane_seconds[graph.lane_ptr[task] : graph.lane_ptr[task + 1]])

    def sent(self, name: str, number: int = 0, layer: int | None = None) -> npt.NDArray[np.int64]:
        """int64[ranks, ranks]: bytes of the number-th transfer of that name."""
        graph = self.graph  # type: ignore[attr-defined]
        flow = graph.coflows[graph.coflow[self.tasks(name, layer)[number]]]
        matrix = np.zeros((self.plan.layout.world, self.plan.layout.world), dtype=np.int64)
        np.add.at(matrix, (flow.source, flow.destination), flow.bytes)
        return matrix

    def joins(self, before: str, after: str) -> set[Join]:
        """How the first task `after` waits for tasks `before`."""
        graph, task = self.graph, self.tasks(after)[0]  # type: ignore[attr-defined]
        edges = range(int(graph.edge_ptr[task]), int(graph.edge_ptr[task + 1]))
        return {Join(int(graph.edge_join[e])) for e in edges if graph.name[graph.edge_from[e]] == before}


def step(routing: list[list[int]] | None = None, **changes: Any) -> HandStep:
    """The step of DATA with other sections."""
    built = build(load_data({**DATA, **changes}, "by hand"), 0)
    plan = built.plan if routing is None else replace(built.plan, routing=Chosen(routing))
    return HandStep(plan, built)


def tp(degree: int, **more: int) -> dict[str, Any]:
    """A parallel section over four GPUs."""
    return {"tensor_parallel_size": degree, "data_parallel_size": 4 // degree, **more}


def gemm(m: int, n: int, k: int, weight: float = 2, inputs: float = 2, peak: float = PEAK) -> float:
    """Seconds of y[m, n] = x[m, k] w[k, n]: read x and w, write y in bf16; or its FLOPs."""
    return max((m * k * inputs + k * n * weight + m * n * 2) / HBM, 2 * m * n * k / peak)


def moved(nbytes: float) -> float:
    """Seconds to read and write so many bytes."""
    return nbytes / HBM
