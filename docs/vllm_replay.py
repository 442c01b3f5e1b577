"""vLLM takes the experts that moesim says, row by row: a plugin, to measure what a step costs with that load.

    moesim trace route SCENARIO -o routed.parquet
    moesim trace export megatron-replay routed.parquet -o rows.npz
    MOESIM_ROWS=rows.npz VLLM_MOE_ROUTING_SIMULATION_STRATEGY=moesim vllm serve MODEL --enforce-eager

vLLM reads no file of routing. It has strategies (`RoutingSimulator`, vLLM 0.11 and newer), and calls `register` in
each of its processes where a package that holds this file names it an entry point of the group
`vllm.general_plugins`.

A strategy is not told which layer asks, nor for whose tokens: layers are counted by their calls, and tokens get rows in
the order of the batch, step after step, from the beginning again at the end. So each layer's load and the row of each
token are those of the file, which request has which row is not. Graphs would replay the ids of their capture
(`--enforce-eager`); data parallel ranks all begin at the first row. What the model answers means nothing.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

try:
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulator, RoutingStrategy
except ImportError:  # where it was until 2026
    from vllm.model_executor.layers.fused_moe.routing_simulator import RoutingSimulator, RoutingStrategy


class Replay(RoutingStrategy):  # type: ignore[misc]
    """rows int[tokens, MoE layers, k]; layer: that asks next; first: row of the batch's first token."""

    def __init__(self, path: str) -> None:
        with np.load(path) as file:
            names = sorted(file, key=lambda name: int(name.removeprefix("layer_")))
            self.rows = np.stack([file[name] for name in names], axis=1)
        self.layer = self.first = 0

    def route_tokens(self, hidden_states: Any, router_logits: Any, top_k: int, indices_type: Any = None) -> Any:
        """(weights, ids), both [tokens, k]; every expert of a token weighs the same."""
        tokens, (there, layers, k) = hidden_states.shape[0], self.rows.shape
        if k != top_k:
            raise ValueError(f"the rows have {k} experts a token, the model {top_k}")
        ids = self.rows[(self.first + np.arange(tokens)) % there, self.layer]
        self.layer = (self.layer + 1) % layers
        if not self.layer:
            self.first = (self.first + tokens) % there
        where = hidden_states.device
        weights = torch.full((tokens, k), 1 / k, dtype=torch.float32, device=where)
        return weights, torch.as_tensor(ids, dtype=indices_type or torch.long, device=where)


def register() -> None:
    """For vLLM's plugins."""
    RoutingSimulator.register_strategy("moesim", Replay(os.environ["MOESIM_ROWS"]))
