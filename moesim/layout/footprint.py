"""What one device of a layout has to hold: weights, KV cache, optimizer states, activations -> MemoryLedger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from moesim.layout.activations import row_bytes_kept, shared_values, token_values
from moesim.layout.layout import Layout
from moesim.layout.memory import MemoryLedger, MemoryRow
from moesim.layout.optimizer import Optimizer
from moesim.layout.placement import Placement
from moesim.layout.shards import Shards
from moesim.layout.spread import TENSOR, UNQUANTISED, Part, Spread
from moesim.layout.states import HBM, Held, state_rows
from moesim.models import Linear

BF16 = 2
LIVE = "batch.tokens_per_gpu"
CAPACITY, PLACES = "capacity buffers", "routing.router"
RESERVED_FRACTION = 0.05  # CUDA context, NCCL buffers, fragmentation: engines leave about 5 to 10 % free (assumed)


class Rows(NamedTuple):
    """Token-expert rows that the fullest rank receives, padding and later rounds included: in one layer, and in all
    layers of a micro-batch; router: numbers that its routers keep beyond a linear gate a layer; buffer, buffers: bytes
    of its own rows in the places of a router with capacity, those it pads included: in one layer, and in all of them.
    """

    layer: int
    step: int
    router: int = 0
    buffer: int = 0
    buffers: int = 0


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
    reserved: int = 0  # bytes that an all-to-all keeps for whatever may arrive
    received: int | None = None  # bytes of a row that an expert gets, as it came; None: bf16


def serving_ledger(spread: Spread, placement: Placement, keeps: Residency, device_bytes: int) -> MemoryLedger:
    """Weights, KV cache and working buffers of a serving rank."""
    rows = (*_weights(spread, placement, keeps), *_serving(spread, keeps), *_reserved(keeps))
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
    saved = (*_saved(spread, keeps, recompute), *_reserved(keeps))
    return MemoryLedger((*rows, *saved), {HBM: _usable(device_bytes)})


def dense_parameters(spread: Spread) -> int:
    """Parameters outside the experts that one rank holds."""
    return sum(part.parameters for part in spread.parts(UNQUANTISED))


def expert_parameters(spread: Spread, placement: Placement) -> int:
    """Expert parameters of the rank that holds most slots, over all layers."""
    return owned_slots(placement) * spread.expert_parameters


def held(spread: Spread, placement: Placement, elsewhere: int = 0, router: int = 0) -> Held:
    """What an optimizer updates on the rank that holds most slots; elsewhere: parameters of tables that others hold;
    router: parameters of a router's own beside its gate.
    """
    *matrices, tables = spread.parts(UNQUANTISED)
    here = tables._replace(layers=tables.layers - elsewhere // spread.head_gemm().parameters)
    experts = Part("expert weights", spread.expert_gemms(), owned_slots(placement), UNQUANTISED)
    dense = dense_parameters(spread) - elsewhere + router
    return Held(dense, expert_parameters(spread, placement), tuple(matrices), here, experts)


def owned_slots(placement: Placement) -> int:
    """Slots of the rank that holds most, over all layers."""
    return int(placement.owned.sum(axis=0).max())


def _usable(device_bytes: int) -> int:
    return int(device_bytes * (1 - RESERVED_FRACTION))


def _weights(spread: Spread, placement: Placement, keeps: Residency) -> Iterator[MemoryRow]:
    dense = sum(spread.held(part) for part in spread.parts(keeps.weight_dtype))
    experts = expert_parameters(spread, placement) * spread.model.weight_bytes(keeps.expert_dtype)
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
        linear = any(isinstance(one, Linear) for one in model.mixers)
        kind = "linear attention states" if linear else "windows and unfinished blocks"
        yield MemoryRow(HBM, kind, states, LIVE)
    buffers = BF16 * model.row_width * 2 * (keeps.live_tokens + keeps.rows.layer)
    item, knob = ("dispatch and combine", "batch.tokens_per_gpu, routing") if model.routed else ("working", LIVE)
    yield MemoryRow(HBM, f"{item} buffers", buffers, knob)
    if keeps.rows.buffer:
        yield MemoryRow(HBM, CAPACITY, 2 * keeps.rows.buffer, PLACES)


def _reserved(keeps: Residency) -> Iterator[MemoryRow]:
    if keeps.reserved:
        yield MemoryRow(HBM, "slots of the all-to-all", keeps.reserved, "comm.dispatch, batch.tokens_per_gpu")


def _states(
    spread: Spread, layout: Layout, placement: Placement, optimizer: Optimizer, router: int
) -> Iterator[MemoryRow]:
    """bf16 gradients on every rank; what the optimizer keeps is sharded over equal ranks."""
    mine, shards = held(spread, placement, router=router), Shards.of(layout)
    states = mine.state_bytes(optimizer, shards)
    return state_rows(shards, (mine.dense, mine.expert), BF16, states, "training.optimizer")


def _saved(spread: Spread, keeps: Residency, recompute: frozenset[str]) -> Iterator[MemoryRow]:
    """Bytes of all layers that the backward pass finds again, in bf16, rows of experts as they came; of recomputed
    experts one layer's at a time. Of a router with places one layer's rows on their way there, and what came back to be
    weighed: weights have gradients.
    """
    again, layers = "moe" in recompute, len(spread.model.moe_layers)
    rows = keeps.rows.layer if again else keeps.rows.step
    tokens = token_values(spread, recompute) + (min(layers, 1) if again else layers) * shared_values(spread)
    yield MemoryRow(HBM, "activations", BF16 * keeps.live_tokens * tokens, LIVE)
    if spread.model.routed:
        kept = rows * row_bytes_kept(spread, keeps.received)
        yield MemoryRow(HBM, "expert activations", kept, "training.recompute, batch.tokens_per_gpu, routing")
    if keeps.rows.buffer:
        outputs = keeps.rows.buffer if again else keeps.rows.buffers
        yield MemoryRow(HBM, CAPACITY, keeps.rows.buffer + outputs, PLACES)
