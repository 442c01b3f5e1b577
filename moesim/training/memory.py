"""What a rank of a stage holds at the most, as Megatron-LM with its distributed optimizer allocates it."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.layout import HBM, MemoryLedger, MemoryRow, Spread, expert_parameters
from moesim.models import Attention, Linear, Mixer, NoMixer
from moesim.training.job import Job
from moesim.training.stages import Stage

BF16, FP32 = 2, 4
WEIGHT, GRADIENT = BF16, FP32  # the parameter that computes; its gradient, added up in place
SHARDED = 3 * FP32  # master copy and Adam's two moments, over the ranks that hold the same


def rank_memory(job: Job, rank: int) -> MemoryLedger:
    """Rows of the fullest rank among those at `rank` of the pipeline, in bytes: all stages that it does."""
    layout, stages = job.layout, [stage for stage in job.stages if job.schedule.rank_of(0, stage.number) == rank]
    spreads = [(stage, job.spread(stage)) for stage in stages]
    dense = sum(_dense(spread, stage) for stage, spread in spreads)
    experts = sum(_experts(job, spread) for _, spread in spreads)
    shards = dense / layout.data_parallel + experts / layout.expert_data_parallel
    alive, saved = job.schedule.alive(rank), max(_saved(job, spread) for _, spread in spreads)
    rows = [
        MemoryRow(HBM, "weights", WEIGHT * (dense + experts), "parallel"),
        MemoryRow(HBM, "gradients", GRADIENT * (dense + experts), "parallel"),
        MemoryRow(HBM, "optimizer states", round(SHARDED * shards), "parallel"),
        MemoryRow(HBM, f"activations of {alive} passes", alive * saved, "batch"),
        *(row for stage, spread in spreads for row in _ends(job, spread, stage)),
    ]
    return MemoryLedger(tuple(rows), {HBM: job.cluster.devices[0].memory_bytes})


def _dense(spread: Spread, stage: Stage) -> int:
    """Parameters beside experts; of the vocabulary's tables those of the stage's ends of the model."""
    layers = sum(part.parameters for part in spread.parts("bf16") if part.name != "embedding weights")
    ends = stage.begins + stage.ends
    tables = min(ends, 1) if spread.model.tie_embeddings else ends
    return layers + tables * spread.head_gemm().parameters


def _experts(job: Job, spread: Spread) -> int:
    return expert_parameters(spread, job.placement(spread.model)) if spread.model.routed else 0


def _saved(job: Job, spread: Spread) -> int:
    """Bytes that the backward pass of one micro-batch finds again, nothing recomputed.

    Of a token in a layer: both norms' inputs and outputs (in slices), what the mixer keeps, of a gated FFN its two
    halves and their product; of a row that goes to an expert the row and the same (the router's weight is multiplied
    in before the down projection, so its output is not kept). Korthikanti et al. (2022), section 4, for flash
    attention, gated FFNs and sequence parallelism.
    """
    model, tokens = spread.model, job.tokens_here
    heads = sum(count * _kept(spread, mixer) for mixer, count in model.mixed)
    ffn = model.dense_layers * model.dense_intermediate + len(model.moe_layers) * model.shared_intermediate
    each = model.num_layers * 4 * model.hidden_size + heads + model.expert_matrices * ffn
    rows = tokens * model.top_k * len(model.moe_layers) if model.routed else 0
    row = model.row_width + model.expert_matrices * spread.expert_width
    return BF16 * (tokens * each + rows * spread.expert_tensor * row)


def _kept(spread: Spread, mixer: Mixer) -> int:
    """Values of a token: queries, keys, values, output; the latents of MLA with their norms' outputs, its keys and
    values for every head.
    """
    if isinstance(mixer, NoMixer):
        return 0
    if isinstance(mixer, Linear):
        return mixer.channels() + 2 * mixer.value_heads * mixer.value_dim
    return _attention(spread, mixer)


def _attention(spread: Spread, mixer: Attention) -> int:
    outputs = mixer.num_heads * (mixer.query_head_dim + mixer.v_head_dim)
    if mixer.kind != "mla":
        return outputs + spread.kv_heads(mixer) * spread.tensor * (mixer.head_dim + mixer.v_head_dim)
    latent = 2 * (mixer.q_lora_rank + mixer.kv_lora_rank) + mixer.qk_rope_head_dim
    return 2 * outputs + latent


def _ends(job: Job, spread: Spread, stage: Stage) -> Iterator[MemoryRow]:
    """The vocabulary's: autograd's bf16 gradient of a table, before it is added to the fp32 one; logits in bf16 and the
    softmax in fp32, in place, over all tokens of a tensor group.
    """
    table = spread.head_gemm()
    if stage.begins or stage.ends:
        yield MemoryRow(HBM, "gradient of a vocabulary table", BF16 * table.parameters, "parallel.tensor_parallel_size")
    if stage.ends:
        logits = job.tokens_here * spread.tensor * table.n
        yield MemoryRow(HBM, "logits and loss", (BF16 + FP32) * logits, "batch.context")
