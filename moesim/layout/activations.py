"""What a layer's forward pass keeps for its backward pass, in values of a token or bytes of a row that an expert gets.

Both norms' inputs and outputs (in slices), what the mixer keeps, of a gated FFN its two halves and their product; of a
row the row and the same (the router's weight is multiplied in before the down projection, so that its output is not
kept). Korthikanti et al. (2022), section 4, for flash attention, gated FFNs and sequence parallelism.
"""

from __future__ import annotations

from typing import Final

from moesim.layout.spread import Spread
from moesim.models import Attention, Linear, Mixer, NoMixer

BF16: Final = 2


def token_values(spread: Spread, recompute: frozenset[str]) -> int:
    """Of a token, in all layers, beside what experts keep; `mla_up_proj`: keys and values of latents are made again."""
    model = spread.model
    heads = sum(count * _mixed(spread, mixer, "mla_up_proj" in recompute) for mixer, count in model.mixed)
    dense = model.dense_layers * model.expert_matrices * model.dense_intermediate
    return model.num_layers * 4 * model.hidden_size + heads + dense


def row_bytes_kept(spread: Spread, received: int | None = None) -> int:
    """Of a row on one of the ranks that share its expert; received: the row's bytes, as it came: by default bf16."""
    row = BF16 * spread.model.row_width if received is None else received
    return row + BF16 * spread.model.expert_matrices * spread.expert_width


def shared_values(spread: Spread) -> int:
    """Of a token in a layer with experts, beside its rows: of shared experts, and of latent rows their sum."""
    return spread.model.expert_matrices * spread.model.shared_intermediate + spread.model.latent


def _mixed(spread: Spread, mixer: Mixer, again: bool) -> int:
    """Queries, keys, values, output and its gate, on all ranks of a tensor group; a recurrence's channels."""
    if isinstance(mixer, NoMixer):
        return 0
    if isinstance(mixer, Linear):
        return mixer.channels() + 2 * mixer.value_heads * mixer.value_dim
    return _attention(spread, mixer, again)


def _attention(spread: Spread, mixer: Attention, again: bool) -> int:
    """Of MLA its latents with their norms' outputs; its keys and values for every head, unless they are made again."""
    outputs = mixer.num_heads * (mixer.query_head_dim + mixer.v_head_dim)
    gate = mixer.num_heads * mixer.v_head_dim if mixer.gated else 0
    if mixer.kind != "mla":
        return outputs + gate + spread.kv_heads(mixer) * spread.tensor * (mixer.head_dim + mixer.v_head_dim)
    latent = 2 * (mixer.q_lora_rank + mixer.kv_lora_rank) + mixer.qk_rope_head_dim
    return (mixer.num_heads * mixer.v_head_dim if again else 2 * outputs) + gate + latent
