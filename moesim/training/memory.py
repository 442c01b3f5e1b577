"""What a rank of a stage holds at the most, as Megatron-LM with its distributed optimizer allocates it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from moesim.layout import HBM, MemoryLedger, MemoryRow, Spread, expert_parameters
from moesim.models import Attention, Linear, Mixer, NoMixer
from moesim.schedules.pipelines import Pass
from moesim.training.job import Job
from moesim.training.stages import Stage

BF16, FP32 = 2, 4
WEIGHT, GRADIENT = BF16, FP32  # the parameter that computes; its gradient, added up in place
SHARDED = 3 * FP32  # master copy and Adam's two moments, over the ranks that hold the same


def rank_memory(job: Job, rank: int) -> MemoryLedger:
    """Rows of the fullest rank among those at `rank` of the pipeline, in bytes: all stages that it does."""
    layout, stages = job.layout, job.stages_of(rank)
    spreads = [(stage, job.spread(stage)) for stage in stages]
    dense = sum(_dense(spread, stage) for stage, spread in spreads)
    experts = sum(_experts(job, spread) for _, spread in spreads)
    shards = dense / layout.data_parallel + experts / layout.expert_data_parallel
    alive, saved = job.schedule.alive(rank), {stage.number: _saved(job, spread) for stage, spread in spreads}
    rows = [
        MemoryRow(HBM, "weights", WEIGHT * (dense + experts), "parallel"),
        MemoryRow(HBM, "gradients", GRADIENT * (dense + experts), "parallel"),
        MemoryRow(HBM, "optimizer states", round(SHARDED * shards), "parallel"),
        MemoryRow(HBM, f"activations of {alive} passes", _most(job, rank, saved), "batch"),
        *_again(job, [spread for _, spread in spreads if spread.model.routed]),
        *(row for stage, spread in spreads for row in _ends(job, spread, stage)),
    ]
    return MemoryLedger(tuple(rows), {HBM: job.cluster.devices[0].memory_bytes})


def _most(job: Job, rank: int, saved: Mapping[int, int]) -> int:
    """The most bytes at once, by the pipeline's order: of each pass, from its forward to its weights' gradients, what
    its stage has saved.
    """
    held = most = 0
    for slot in job.schedule.rank(rank):
        held += sum(saved[act.stage] for act in slot if act.what == Pass.F)
        most = max(most, held)
        held -= sum(saved[act.stage] for act in slot if act.what in (Pass.B, Pass.W))
    return most


def _dense(spread: Spread, stage: Stage) -> int:
    """Parameters beside experts; of the vocabulary's tables those of the stage's ends of the model."""
    layers = sum(part.parameters for part in spread.parts("bf16") if part.name != "embedding weights")
    return layers + stage.tables(spread.model.tie_embeddings) * spread.head_gemm().parameters


def _experts(job: Job, spread: Spread) -> int:
    return expert_parameters(spread, job.placement(spread.model)) if spread.model.routed else 0


def _saved(job: Job, spread: Spread) -> int:
    """Bytes that the backward pass of one micro-batch finds again; what it recomputes is not among them.

    Of a token in a layer: both norms' inputs and outputs (in slices), what the mixer keeps, of a gated FFN its two
    halves and their product; of a row that goes to an expert the row and the same (the router's weight is multiplied
    in before the down projection, so its output is not kept). Korthikanti et al. (2022), section 4, for flash
    attention, gated FFNs and sequence parallelism.
    """
    model, tokens = spread.model, job.tokens_here
    heads = sum(count * _kept(spread, mixer, "mla_up_proj" in job.recompute) for mixer, count in model.mixed)
    dense = model.dense_layers * model.expert_matrices * model.dense_intermediate
    moe = 0 if "moe" in job.recompute else len(model.moe_layers) * _of_experts(spread)
    return BF16 * tokens * (model.num_layers * 4 * model.hidden_size + heads + dense + moe)


def _of_experts(spread: Spread) -> int:
    """Values of a token in a layer with experts: its rows' and its shared experts', and of latent rows their sum."""
    model = spread.model
    row = model.row_width + model.expert_matrices * spread.expert_width
    shared = model.expert_matrices * model.shared_intermediate
    return model.top_k * spread.expert_tensor * row + shared + model.latent


def _again(job: Job, routed: Sequence[Spread]) -> Iterator[MemoryRow]:
    """What experts keep that are computed again: one layer of one micro-batch at a time."""
    if routed and "moe" in job.recompute:
        saved = BF16 * job.tokens_here * _of_experts(routed[0])
        yield MemoryRow(HBM, "experts of a layer, recomputed", saved, "training.recompute, batch")


def _kept(spread: Spread, mixer: Mixer, again: bool) -> int:
    """Values of a token: queries, keys, values, output and its gate; the latents of MLA with their norms' outputs, its
    keys and values for every head, unless they are made `again`.
    """
    if isinstance(mixer, NoMixer):
        return 0
    if isinstance(mixer, Linear):
        return mixer.channels() + 2 * mixer.value_heads * mixer.value_dim
    return _attention(spread, mixer, again)


def _attention(spread: Spread, mixer: Attention, again: bool) -> int:
    outputs = mixer.num_heads * (mixer.query_head_dim + mixer.v_head_dim)
    gate = mixer.num_heads * mixer.v_head_dim if mixer.gated else 0
    if mixer.kind != "mla":
        return outputs + gate + spread.kv_heads(mixer) * spread.tensor * (mixer.head_dim + mixer.v_head_dim)
    latent = 2 * (mixer.q_lora_rank + mixer.kv_lora_rank) + mixer.qk_rope_head_dim
    return (mixer.num_heads * mixer.v_head_dim if again else 2 * outputs) + gate + latent


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
