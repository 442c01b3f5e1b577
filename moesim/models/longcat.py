"""LongCat-Flash: layers that attend twice, with experts on a shortcut between; some experts compute nothing."""

from __future__ import annotations

from moesim.errors import BadInput
from moesim.models.config import Config
from moesim.models.families import Fields, latent_attention

SHORTCUT = (
    "experts beside the second attention of their layer are played in front of it; overlap.schedule: scmoe lets them "
    "run beside it"
)


def longcat_flash(config: Config) -> Fields:
    """A published layer is two here, each with its attention and dense FFN; experts stand in the first of them, beside
    its FFN as beside a shared expert. Of its choices those that fall on experts without computation are left out.
    """
    layers, width = config.integer("num_layers"), config.integer("ffn_hidden_size")
    experts, empty = config.integer("n_routed_experts"), config.integer("zero_expert_num", default=0)
    chosen = config.integer("moe_topk")
    if not chosen:
        raise BadInput("is 0", where=f"{config.source} moe_topk")
    return {
        "attention": latent_attention(config),
        "num_layers": 2 * layers,
        "moe_layers": tuple(range(0, 2 * layers, 2)),
        "num_experts": experts,
        "top_k": _computing(config, chosen, experts, empty),
        "expert_intermediate": config.integer("expert_ffn_hidden_size"),
        "shared_intermediate": width,
        "dense_intermediate": width,
        "mtp_layers": config.integer("num_nextn_predict_layers", default=0),
        "approximations": (SHORTCUT, *([_even(chosen, experts, empty)] if empty else [])),
    }


def _computing(config: Config, chosen: int, experts: int, empty: int) -> int:
    """Choices of a token that fall on experts which compute, where all experts are chosen alike. Raises BadInput."""
    if not experts:
        raise BadInput("is 0", where=f"{config.source} n_routed_experts")
    return max(round(chosen * experts / (experts + empty)), 1)


def _even(chosen: int, experts: int, empty: int) -> str:
    """What is said of it."""
    share = chosen * experts / (experts + empty)
    played = max(round(share), 1)
    return (
        f"of top-{chosen} of {experts + empty} experts {empty} compute nothing: {played} choices of every token are "
        f"played, an even load leaves {share:.3g}; in truth they vary from token to token (as they do with "
        f"routing.router: {{name: null_adamoe, null: {empty}, k: {chosen}}})"
    )
