"""DeepSeek-V4: compressed attention, hyper-connections in place of the residual stream, experts in fp4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moesim.errors import BadInput
from moesim.models.compressed import Compressed
from moesim.models.config import Config
from moesim.models.families import Fields
from moesim.models.model import MXFP4

EXPERTS = ("fp4", "fp8", "bf16")
PICKS = 4  # tokens of a block whose keys an indexer picks from; those of longer blocks are all looked at
HASHED = "experts of the first {} layers follow from a token's id: they are played as those of any other layer"


def deepseek_v4(config: Config) -> Fields:
    """Experts in every layer; `compress_ratios` says how each layer attends. Raises BadInput."""
    layers, width = config.integer("num_hidden_layers"), config.integer("moe_intermediate_size")
    ratios = _ratios(config, layers)
    kinds = sorted(set(ratios))
    made = {ratio: _attention(config, ratio) for ratio in kinds}
    first = next((ratio for ratio in (PICKS, *reversed(kinds)) if ratio in kinds), 0)
    hashed = config.integer("num_hash_layers", default=0)
    return {
        "attention": made[first],
        "others": tuple((made[one], _where(ratios, one)) for one in kinds if one != first),
        "moe_layers": tuple(range(layers)),
        "num_experts": config.integer("n_routed_experts"),
        "expert_intermediate": width,
        "shared_intermediate": config.integer("n_shared_experts", default=0) * width,
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
        "hyper": config.integer("hc_mult", default=0),
        "kv_dtype": "fp8",  # there are kernels for no other cache
        **_expert_dtype(config),
        "approximations": (HASHED.format(hashed),) if hashed else (),
    }


def _ratios(config: Config, layers: int) -> tuple[int, ...]:
    """Of each layer; what follows is of multi-token prediction."""
    found = config.integers("compress_ratios")
    if len(found) < layers or min(found, default=0) < 0:
        raise BadInput(
            f"says not of each of {layers} layers how many tokens make a block",
            where=f"{config.source} compress_ratios",
        )
    return found[:layers]


def _where(ratios: Sequence[int], ratio: int) -> tuple[int, ...]:
    return tuple(layer for layer, one in enumerate(ratios) if one == ratio)


def _attention(config: Config, ratio: int) -> Compressed:
    heads, width, groups = (config.positive(name) for name in ("num_attention_heads", "head_dim", "o_groups"))
    if heads % groups:
        raise BadInput(f"{heads} heads are not shared evenly by {groups}", where=f"{config.source} o_groups")
    whole = Compressed(
        "mla", heads, heads, width, width,
        q_lora_rank=config.positive("q_lora_rank"), window=config.positive("sliding_window"), ratio=ratio,
        out_rank=config.positive("o_lora_rank"), out_groups=groups,
    )  # fmt: skip
    if ratio != PICKS:
        return whole
    return replace(
        whole, selected=config.positive("index_topk"), index_heads=config.positive("index_n_heads"),
        index_dim=config.positive("index_head_dim"),
    )  # fmt: skip


def _expert_dtype(config: Config) -> Fields:
    """What the file says of its experts beside how it is quantised. Raises BadInput for a dtype that is not known."""
    said = config.data.get("expert_dtype")
    if said is None:
        return {}
    if said not in EXPERTS:
        raise BadInput(
            f"{str(said)[:40]!r} is not known", where=f"{config.source} expert_dtype", way_out=" or ".join(EXPERTS)
        )
    return {"expert_dtype": said, "fp4_block": MXFP4}  # scales are powers of two (ue8m0), as MXFP4's are
