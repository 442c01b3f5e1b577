"""A model of one's own, described in YAML: dense or with experts, grouped or latent attention, windows, recurrences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.models.mixer import Attention, Linear, Mixer
from moesim.models.model import MoEModel

MAX_LAYERS = 10_000
LATENT = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
ATTENDS, WINDOWED, RECURS = "A", "W", "L"


class InlineAttention(yamlfile.Section):
    """Grouped-query attention, or latent attention (MLA) where `kv_lora_rank` is given."""

    num_heads: int = Field(ge=1, description="of queries")
    num_kv_heads: int = Field(0, ge=0, description="of grouped attention")
    head_dim: int = Field(0, ge=0, description="of grouped attention")
    window: int = Field(0, ge=0, description="tokens that layers marked W look back at")
    kv_lora_rank: int = Field(0, ge=0, description="latent attention: cached values beside the rotary key")
    q_lora_rank: int = Field(0, ge=0, description="latent attention, 0: queries are not compressed")
    qk_nope_head_dim: int = Field(0, ge=0, description="latent attention")
    qk_rope_head_dim: int = Field(0, ge=0, description="latent attention")
    v_head_dim: int = Field(0, ge=0, description="latent attention")
    selected: int = Field(0, ge=0, description="latent attention: tokens that a query attends to, 0: all")
    index_heads: int = Field(0, ge=0, description="of the indexer that picks them")
    index_dim: int = Field(0, ge=0, description="width of an index key")

    @model_validator(mode="after")
    def _one_kind(self) -> InlineAttention:
        latent = any(getattr(self, name) for name in LATENT)
        wanted, other = (LATENT, ("num_kv_heads", "head_dim")) if latent else (("num_kv_heads", "head_dim"), ())
        missing = [name for name in wanted if not getattr(self, name)]
        if missing:
            raise ValueError(f"{missing[0]} is missing of {'latent' if latent else 'grouped'} attention")
        picks = {name: getattr(self, name) for name in ("selected", "index_heads", "index_dim")}
        if any(picks.values()) and not (latent and all(picks.values())):
            raise ValueError(f"latent attention to picked tokens needs {', '.join(picks)}")
        if extra := [name for name in other if getattr(self, name)]:
            raise ValueError(f"latent attention has no {extra[0]}")
        return self

    def build(self, window: int = 0) -> Attention:
        """The noun."""
        heads = self.num_heads
        if self.kv_lora_rank:
            nope, rope = self.qk_nope_head_dim, self.qk_rope_head_dim
            widths = (nope + rope, self.v_head_dim, self.q_lora_rank, self.kv_lora_rank, nope, rope)
            found = Attention("mla", heads, heads, *widths, window=window)
            if window:
                return found
            return replace(found, selected=self.selected, index_heads=self.index_heads, index_dim=self.index_dim)
        kind: Literal["mha", "gqa"] = "mha" if heads == self.num_kv_heads else "gqa"
        return Attention(kind, heads, self.num_kv_heads, self.head_dim, self.head_dim, window=window)


class InlineLinear(yamlfile.Section):
    """A linear recurrence, of layers marked L."""

    kind: Literal["gdn", "kda", "mamba2", "mamba1", "lightning"] = Field(description="which recurrence")
    key_heads: int = Field(1, ge=1, description="Mamba: groups")
    key_dim: int = Field(ge=1, description="Mamba: the state's width")
    value_heads: int = Field(ge=1, description="Mamba: heads")
    value_dim: int = Field(ge=1, description="width of a head")
    conv: int = Field(4, ge=0, description="taps of the convolution before it, 0: none")
    rank: int = Field(0, ge=0, description="of low-rank gates (kda) or steps (mamba1)")


class InlineModel(yamlfile.Section):
    """A model of one's own: YAML with these keys. All layers have experts but the first `dense_layers`; none has where
    `num_experts` is left out.
    """

    name: str = Field(description="shown in results")
    hidden_size: int = Field(ge=1, description="width of the residual stream")
    num_layers: int = Field(ge=1, le=MAX_LAYERS, description="all of them, dense ones included")
    dense_layers: int = Field(0, ge=0, description="first layers without experts")
    expert_interval: int = Field(1, ge=1, description="of the others the last of so many has experts")
    vocab_size: int = Field(ge=1, description="rows of the embedding")
    tie_embeddings: bool = Field(False, description="the output projection is the embedding")
    attention: InlineAttention
    linear: InlineLinear | None = Field(None, description="of layers marked L")
    pattern: str = Field(
        "A", pattern="^[AWL]{1,10000}$",
        description="of layers, repeated: A attention, W attention in its window, L the linear recurrence",
    )  # fmt: skip
    num_experts: int = Field(0, ge=0, description="routed experts of a layer; 0: a dense model")
    top_k: int = Field(0, ge=0, description="experts that a token goes to")
    expert_intermediate: int = Field(0, ge=0, description="width inside a routed expert")
    shared_intermediate: int = Field(0, ge=0, description="width of all shared experts together")
    dense_intermediate: int = Field(0, ge=0, description="width of layers without experts")
    num_groups: int = Field(1, ge=1, description="of experts that routing is limited to some of")
    topk_groups: int = Field(1, ge=1, description="groups that a token may choose from")
    latent: int = Field(0, ge=0, description="width that experts work in, between two projections; 0: hidden_size")
    dtype: str = Field("bf16", pattern="^(bf16|fp8|fp4)$", description="of its weights")
    expert_matrices: int = Field(3, ge=2, le=3, description="3: gated (gate, up, down); 2: up and down")

    @model_validator(mode="after")
    def _experts_or_none(self) -> InlineModel:
        given = {name: getattr(self, name) for name in ("num_experts", "top_k", "expert_intermediate")}
        if any(given.values()) and not all(given.values()):
            missing = next(name for name, value in given.items() if not value)
            raise ValueError(f"{missing} is missing: experts need {', '.join(given)}; a dense model has none of them")
        alone = self.num_experts and self.dense_layers + self.expert_interval > self.num_layers
        if alone and self.expert_interval > 1:
            raise ValueError(
                f"expert_interval {self.expert_interval} after {self.dense_layers} dense layers of {self.num_layers} "
                "leaves none with experts"
            )
        return self

    @model_validator(mode="after")
    def _letters_mean_something(self) -> InlineModel:
        for letter, key, given in (
            (WINDOWED, "attention.window", bool(self.attention.window)), (RECURS, "linear", self.linear is not None),
        ):  # fmt: skip
            if (letter in self.pattern) != given:
                raise ValueError(
                    f"pattern {self.pattern[:20]!r} and {key} belong together: {letter} is a layer with it"
                )
        return self

    def build(self, source: str) -> MoEModel:
        """The noun, not checked. Raises BadInput where no layer attends: its shape is asked for everywhere."""
        if ATTENDS not in self.pattern and WINDOWED not in self.pattern:
            raise BadInput(f"no layer of pattern {self.pattern[:20]!r} attends", where=source, way_out="pattern: LLLA")
        return MoEModel(
            model_type="inline", attention=self.attention.build(), others=tuple(self._others()),
            moe_layers=self._with_experts(),
            weight_dtype=self.dtype, expert_dtype=self.dtype, **self._same(),
        )  # fmt: skip

    def _with_experts(self) -> tuple[int, ...]:
        """Layers that have some."""
        first = self.dense_layers + self.expert_interval - 1
        return tuple(range(first, self.num_layers, self.expert_interval)) if self.num_experts else ()

    def _others(self) -> list[tuple[Mixer, tuple[int, ...]]]:
        """Mixers of layers that are not marked A."""
        letters = [self.pattern[layer % len(self.pattern)] for layer in range(self.num_layers)]
        found: list[tuple[Mixer, tuple[int, ...]]] = []
        if self.attention.window:
            found.append((self.attention.build(self.attention.window), _where(letters, WINDOWED)))
        if self.linear:
            found.append((Linear(**self.linear.model_dump()), _where(letters, RECURS)))
        return found

    def _same(self) -> dict[str, Any]:
        """What is called the same in both."""
        return self.model_dump(exclude={"attention", "linear", "pattern", "dense_layers", "expert_interval", "dtype"})


def decoder(model: MoEModel) -> str:
    """The decoder of a model with an encoder in words that a scenario takes, as near as they come."""
    heads, layers = model.attention, model.num_layers - model.encoder_layers
    sparse = [layer - model.encoder_layers for layer in model.moe_layers if layer >= model.encoder_layers]
    interval = f", expert_interval: {max(layers // len(sparse), 1)}, dense_intermediate: {model.dense_intermediate}"
    experts = (
        f", num_experts: {model.num_experts}, top_k: {model.top_k}, expert_intermediate: {model.expert_intermediate}"
        f"{interval if len(sparse) < layers else ''}"
    )
    return (
        f"{{name: decoder, hidden_size: {model.hidden_size}, num_layers: {layers}, vocab_size: {model.vocab_size}, "
        f"tie_embeddings: {str(model.tie_embeddings).lower()}, attention: {{num_heads: {heads.num_heads}, "
        f"num_kv_heads: {heads.num_kv_heads}, head_dim: {heads.head_dim}}}, expert_matrices: {model.expert_matrices}"
        f"{experts if sparse else f', dense_intermediate: {model.dense_intermediate}'}}}"
    )


def _where(letters: list[str], letter: str) -> tuple[int, ...]:
    return tuple(layer for layer, one in enumerate(letters) if one == letter)
