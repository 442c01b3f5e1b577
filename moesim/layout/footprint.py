"""What one device of a layout has to hold: weights, KV cache, optimizer states, activations -> MemoryLedger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from moesim.layout.layout import Layout
from moesim.layout.memory import MemoryLedger, MemoryRow
from moesim.layout.optimizer import Optimizer
from moesim.layout.placement import Placement
from moesim.layout.spread import TENSOR, UNQUANTISED, Part, Spread
from moesim.models import DTYPE_BYTES, Linear, Mixer, NoMixer

HBM = "HBM"
BF16 = 2
LIVE = "batch.tokens_per_gpu"
RESERVED_FRACTION = 0.05  # CUDA context, NCCL buffers, fragmentation: engines leave about 5 to 10 % free (assumed)


class Rows(NamedTuple):
    """Token-expert rows that the fullest rank receives, padding and later rounds included: in one layer, and in all
    layers of a micro-batch; router: numbers that its routers keep beyond a linear gate a layer.
    """

    layer: int
    step: int
    router: int = 0


@dataclass(frozen=True)
class Residency:
    """What a step keeps in memory: dtypes of weights, and what its tokens leave behind on the fullest rank."""

    weight_dtype: str
    expert_dtype: str
    kv_dtype: str
    sequences: int  # for each rank of a tensor group
    cached: int  # tokens of each whose keys and values are known
    live_tokens: int  # tokens that one rank computes at a time
    rows: Rows


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
    optimizer: Optimizer,
    device_bytes: int,
) -> MemoryLedger:
    """Weights, gradients, sharded optimizer states and the activations of one micro-batch of a training rank."""
    states = _states(spread, layout, placement, optimizer, keeps.rows.router)
    rows = (*_weights(spread, placement, keeps), *states)
    saved = (*_saved(spread, keeps, recompute),)
    return MemoryLedger((*rows, *saved), {HBM: _usable(device_bytes)})


def dense_parameters(spread: Spread) -> int:
    """Parameters outside the experts that one rank holds."""
    return sum(part.parameters for part in spread.parts(UNQUANTISED))


def expert_parameters(spread: Spread, placement: Placement) -> int:
    """Expert parameters of the rank that holds most slots, over all layers."""
    return owned_slots(placement) * spread.expert_parameters


def owned_slots(placement: Placement) -> int:
    """Slots of the rank that holds most, over all layers."""
    return int(placement.owned.sum(axis=0).max())


def _usable(device_bytes: int) -> int:
    return int(device_bytes * (1 - RESERVED_FRACTION))


def _weights(spread: Spread, placement: Placement, keeps: Residency) -> Iterator[MemoryRow]:
    dense = sum(part.bytes for part in spread.parts(keeps.weight_dtype))
    experts = expert_parameters(spread, placement) * DTYPE_BYTES[keeps.expert_dtype]
    yield MemoryRow(HBM, "dense weights", int(dense), TENSOR)
    if keeps.rows.router:
        yield MemoryRow(HBM, "router weights", BF16 * keeps.rows.router, "routing.router")
    if spread.model.routed:
        yield MemoryRow(HBM, "expert weights", int(experts), "parallel.expert_parallel_size, experts.redundant")


def _serving(spread: Spread, keeps: Residency) -> Iterator[MemoryRow]:
    model = spread.model
    sequences = keeps.sequences * spread.tensor
    cache = sequences * spread.kv_bytes(keeps.kv_dtype, keeps.cached)
    yield MemoryRow(HBM, "KV cache", int(cache), "batch.tokens_per_gpu, batch.context")
    if states := sequences * spread.state_bytes:
        yield MemoryRow(HBM, "linear attention states", states, LIVE)
    buffers = BF16 * model.row_width * 2 * (keeps.live_tokens + keeps.rows.layer)
    item, knob = ("dispatch and combine", "batch.tokens_per_gpu, routing") if model.routed else ("working", LIVE)
    yield MemoryRow(HBM, f"{item} buffers", buffers, knob)


def _states(
    spread: Spread, layout: Layout, placement: Placement, optimizer: Optimizer, router: int
) -> Iterator[MemoryRow]:
    """bf16 gradients on every rank; what the optimizer keeps is sharded over equal ranks."""
    dense, experts = dense_parameters(spread) + router, expert_parameters(spread, placement)
    yield MemoryRow(HBM, "gradients", BF16 * (dense + experts), "parallel.expert_parallel_size")
    shards = dense / layout.data_parallel + experts / layout.expert_data_parallel
    own = Part("expert weights", spread.expert_gemms(), owned_slots(placement), UNQUANTISED)
    factors = optimizer.factors(spread.parts(UNQUANTISED)) / layout.data_parallel
    factors += optimizer.factors((own,)) / layout.expert_data_parallel
    kept = int(optimizer.bytes_per_parameter * shards + factors)
    yield MemoryRow(HBM, "optimizer states", kept, "training.optimizer, training.master, parallel.data_parallel_size")


def _saved(spread: Spread, keeps: Residency, recompute: frozenset[str]) -> Iterator[MemoryRow]:
    """Bytes of all layers that the backward pass finds again, in bf16.

    A layer saves its input and the norm's output (2 h), queries, keys, values and the core's output (flash attention
    saves no scores: a recomputed core saves no less), the second norm (2 h), and per row that a rank received the row,
    its two halves of the up projection, their product and its result, unless `moe` is recomputed; the sum of a token's
    latent rows.
    The shares follow Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022),
    section 4, rewritten for a gated expert FFN.
    """
    model = spread.model
    hidden, layers = model.hidden_size, len(model.moe_layers)
    heads = sum(count * _kept(spread, mixer) for mixer, count in model.mixed)
    dense = model.dense_layers * model.expert_matrices * model.dense_intermediate
    tokens = model.num_layers * 4 * hidden + heads + dense
    shared = layers * (model.expert_matrices * model.shared_intermediate + model.latent)
    row = 2 * model.row_width + model.expert_matrices * spread.expert_width
    again = "moe" in recompute
    rows = keeps.rows.layer if again else keeps.rows.step  # recomputed: only one layer's are alive at a time
    shared = shared // max(layers, 1) if again else shared
    yield MemoryRow(HBM, "activations", BF16 * keeps.live_tokens * (tokens + shared), LIVE)
    if model.routed:
        yield MemoryRow(
            HBM, "expert activations", BF16 * rows * row, "training.recompute, batch.tokens_per_gpu, routing"
        )


def _kept(spread: Spread, mixer: Mixer) -> int:
    """Values of a token that one layer's mixer saves, of all ranks of its tensor group: queries, keys, values, the
    output; a recurrence's gate too.
    """
    if isinstance(mixer, NoMixer):
        return 0
    if isinstance(mixer, Linear):
        return mixer.channels() + 2 * mixer.value_heads * mixer.value_dim
    widths = mixer.query_head_dim + mixer.v_head_dim
    gate = mixer.num_heads * mixer.v_head_dim if mixer.gated else 0
    return gate + mixer.num_heads * widths + spread.kv_heads(mixer) * spread.tensor * widths
