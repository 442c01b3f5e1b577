"""What one device of a layout has to hold: weights, KV cache, optimizer states, activations -> MemoryLedger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moesim.layout.layout import Layout
from moesim.layout.memory import MemoryLedger, MemoryRow
from moesim.layout.placement import Placement
from moesim.layout.spread import TENSOR, UNQUANTISED, Spread
from moesim.models import DTYPE_BYTES

HBM = "HBM"
BF16 = 2
RESERVED_FRACTION = 0.05  # CUDA context, NCCL buffers, fragmentation: engines leave about 5 to 10 % free (assumed)


@dataclass(frozen=True)
class Residency:
    """What a step keeps in memory: dtypes of weights, and what its tokens leave behind on the fullest rank."""

    weight_dtype: str
    expert_dtype: str
    kv_dtype: str
    kv_tokens: int  # tokens whose keys and values stay cached, for each rank of a tensor group
    live_tokens: int  # tokens that one rank computes at a time


def serving_ledger(spread: Spread, placement: Placement, keeps: Residency, device_bytes: int) -> MemoryLedger:
    """Weights, KV cache and working buffers of a serving rank."""
    rows = (*_weights(spread, placement, keeps), *_serving(spread, keeps))
    return MemoryLedger(rows, {HBM: _usable(device_bytes)})


def training_ledger(
    spread: Spread,
    layout: Layout,
    placement: Placement,
    keeps: Residency,
    recompute: frozenset[str],
    device_bytes: int,
) -> MemoryLedger:
    """Weights, gradients, sharded optimizer states and the activations of one micro-batch of a training rank."""
    rows = (*_weights(spread, placement, keeps), *_states(spread, layout, placement))
    activations = keeps.live_tokens * _saved_bytes_per_token(spread, recompute)
    row = MemoryRow(HBM, "activations", activations, "batch.tokens_per_gpu, training.recompute")
    return MemoryLedger((*rows, row), {HBM: _usable(device_bytes)})


def dense_parameters(spread: Spread) -> int:
    """Parameters outside the experts that one rank holds."""
    return sum(part.parameters for part in spread.parts(UNQUANTISED))


def expert_parameters(spread: Spread, placement: Placement) -> int:
    """Expert parameters of the rank that holds most slots."""
    slots = sum(int(np.bincount(ranks, minlength=placement.num_ranks).max()) for ranks in placement.slot_rank)
    return slots * spread.expert_parameters


def _usable(device_bytes: int) -> int:
    return int(device_bytes * (1 - RESERVED_FRACTION))


def _weights(spread: Spread, placement: Placement, keeps: Residency) -> Iterator[MemoryRow]:
    dense = sum(part.bytes for part in spread.parts(keeps.weight_dtype))
    experts = expert_parameters(spread, placement) * DTYPE_BYTES[keeps.expert_dtype]
    yield MemoryRow(HBM, "dense weights", int(dense), TENSOR)
    yield MemoryRow(HBM, "expert weights", int(experts), "parallel.expert_parallel_size, experts.redundant")


def _serving(spread: Spread, keeps: Residency) -> Iterator[MemoryRow]:
    model = spread.model
    cache = keeps.kv_tokens * spread.tensor * spread.kv_bytes_per_token(keeps.kv_dtype)
    yield MemoryRow(HBM, "KV cache", int(cache), "batch.tokens_per_gpu, batch.context")
    buffers = keeps.live_tokens * BF16 * model.hidden_size * (2 + 2 * model.top_k)
    yield MemoryRow(HBM, "dispatch and combine buffers", buffers, "batch.tokens_per_gpu")


def _states(spread: Spread, layout: Layout, placement: Placement) -> Iterator[MemoryRow]:
    """bf16 gradients on every rank; fp32 master weights and two moments (12 bytes) sharded over equal ranks."""
    dense, experts = dense_parameters(spread), expert_parameters(spread, placement)
    shards = dense / layout.data_parallel + experts / layout.expert_data_parallel
    yield MemoryRow(HBM, "gradients", BF16 * (dense + experts), "parallel.expert_parallel_size")
    yield MemoryRow(HBM, "optimizer states", int(12 * shards), "parallel.data_parallel_size, cluster.nodes")


def _saved_bytes_per_token(spread: Spread, recompute: frozenset[str]) -> int:
    """Bytes of all layers that the backward pass finds again, in bf16.

    A layer saves its input and the norm's output (2 h), queries, keys, values and the core's output unless the core is
    recomputed from its inputs (flash attention saves no scores), the second norm (2 h), and per chosen expert the row
    it received, its two halves of the up projection, their product and its result, unless `moe` is recomputed.
    The shares follow Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022),
    section 4, rewritten for a gated expert FFN.
    """
    model = spread.model
    attention, hidden = model.attention, model.hidden_size
    heads = attention.num_heads * (attention.query_head_dim + attention.v_head_dim)
    cache = attention.num_kv_heads * (attention.query_head_dim + attention.v_head_dim)
    per_layer = 4 * hidden + heads + cache
    rows = model.top_k * (2 * hidden + model.expert_matrices * model.expert_intermediate)
    shared = model.expert_matrices * model.shared_intermediate
    moe = 0 if "moe" in recompute else rows + shared
    dense = model.expert_matrices * model.dense_intermediate
    layers = len(model.moe_layers)
    return BF16 * (model.num_layers * per_layer + layers * moe + (model.num_layers - layers) * dense)
