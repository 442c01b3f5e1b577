"""MoEModel: what a model is made of; it knows parameters, FLOPs and bytes of a shape, and nothing of time.

Norms and biases are not counted, nor are multi-token-prediction layers: that is the counting rule of the published
totals this is tested against (both embeddings counted in total and active).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from moesim.models.mixer import Attention, Gemm, Mixer

DTYPE_BYTES: Final[dict[str, float]] = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "fp4": 0.5}
SCALE_BYTES: Final = {"bf16": 0.0, "fp8": 4 / 128, "fp4": 1 / 16}  # fp32 scale of 128 values; a byte of 16
CACHE_BYTES: Final = {**DTYPE_BYTES, "fp4": 0.5 + 1 / 16}  # of KV: scales of NVFP4; one of fp8 is for a whole tensor
NVFP4, MXFP4 = 16, 32  # weights that share a byte of scale


@dataclass(frozen=True)
class MoEModel:
    """Shape of a transformer. `moe_layers` are model layer indices, none of a dense model; widths are per expert.

    `shared_intermediate` is the total width of the shared experts (0: none), `num_groups`/`topk_groups` the limits of
    group-limited routing (1/1: none), `expert_matrices` 3 for gated experts and 2 for others. `attention` is what mixes
    tokens in layers that `others` does not name: other mixers, each with its layers. `bare_layers` have neither experts
    nor an FFN. `encoder_layers`: the first so many are an encoder's (0: there is none). `latent`: width that a token is
    projected to before it goes to its experts, and back from (0: none).
    `hyper`: copies of the residual stream that hyper-connections mix before and after every block (0: a plain one).
    `fp4_block`: weights in fp4 that share a byte of scale.
    `approximations` are sentences that every Result has to repeat.
    """

    name: str
    model_type: str
    hidden_size: int
    num_layers: int
    vocab_size: int
    tie_embeddings: bool
    attention: Attention
    moe_layers: tuple[int, ...]
    num_experts: int
    top_k: int
    expert_intermediate: int
    shared_intermediate: int = 0
    dense_intermediate: int = 0
    num_groups: int = 1
    topk_groups: int = 1
    mtp_layers: int = 0
    weight_dtype: str = "bf16"
    expert_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    expert_matrices: int = 3
    latent: int = 0
    others: tuple[tuple[Mixer, tuple[int, ...]], ...] = ()
    bare_layers: tuple[int, ...] = ()
    encoder_layers: int = 0
    hyper: int = 0
    fp4_block: int = NVFP4
    approximations: tuple[str, ...] = ()

    @property
    def routed(self) -> bool:
        """It has routed experts."""
        return bool(self.moe_layers)

    @property
    def dense_layers(self) -> int:
        """Layers with an FFN that all tokens go through."""
        return self.num_layers - len(self.moe_layers) - len(self.bare_layers)

    @property
    def row_width(self) -> int:
        """Of what is sent to an expert, and what it gives back."""
        return self.latent or self.hidden_size

    @property
    def expert_parameters(self) -> int:
        """Of one routed expert in one layer."""
        return self.expert_matrices * self.row_width * self.expert_intermediate

    @cached_property
    def mixers(self) -> tuple[Mixer, ...]:
        """The different ones, `attention` first."""
        return (self.attention, *(mixer for mixer, _ in self.others))

    @cached_property
    def mixer_of(self) -> tuple[int, ...]:
        """Of each layer, by its number in `mixers`."""
        named = {layer: number for number, (_, layers) in enumerate(self.others, 1) for layer in layers}
        return tuple(named.get(layer, 0) for layer in range(self.num_layers))

    @cached_property
    def mixed(self) -> tuple[tuple[Mixer, int], ...]:
        """Each mixer and how many layers have it."""
        return tuple((mixer, self.mixer_of.count(number)) for number, mixer in enumerate(self.mixers))

    @property
    def in_full(self) -> MoEModel:
        """The same whose tokens attend to all of their sequence, in layers of plain attention."""
        others = tuple((one.in_full if isinstance(one, Attention) else one, layers) for one, layers in self.others)
        return replace(self, attention=self.attention.in_full, others=others)

    @property
    def mixing_parameters(self) -> int:
        """Of all layers' attention, or what stands in its place."""
        return sum(layers * _parameters(mixer, self.hidden_size) for mixer, layers in self.mixed)

    @property
    def hyper_parameters(self) -> int:
        """Of hyper-connections: weights of all copies' mixing, twice a layer, from all copies of a token."""
        return 2 * self.num_layers * (2 + self.hyper) * self.hyper**2 * self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """Input and output embeddings; tied ones count once."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)

    @property
    def total_parameters(self) -> int:
        """All of them."""
        return self._parameters(self.num_experts)

    @property
    def active_parameters(self) -> int:
        """Those that one token uses."""
        return self._parameters(self.top_k)

    def _parameters(self, experts: int) -> int:
        ffn = self.expert_matrices * self.hidden_size
        moe = experts * self.expert_parameters + ffn * self.shared_intermediate
        moe += sum(gemm.parameters for gemm in (self.router_gemm(), *self.latent_gemms()))
        dense = ffn * self.dense_intermediate
        layers = len(self.moe_layers)
        own = self.mixing_parameters + self.hyper_parameters + self.embedding_parameters
        return own + layers * moe + self.dense_layers * dense

    def mixer_gemms(self, tensor_parallel: int = 1, mixer: int = 0) -> tuple[Gemm, ...]:
        """Projections of one layer with that mixer, by number, on one rank."""
        return self.mixers[mixer].gemms(self.hidden_size, tensor_parallel)

    def router_gemm(self) -> Gemm:
        """The gate."""
        return Gemm("router", self.num_experts, self.hidden_size)

    def latent_gemms(self) -> tuple[Gemm, ...]:
        """Projections to the width of an expert's rows and back; empty where that is the model's."""
        there, back = (
            Gemm("latent_down", self.latent, self.hidden_size),
            Gemm("latent_up", self.hidden_size, self.latent),
        )
        return (there, back) if self.latent else ()

    def shared_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """The shared experts as one FFN on one rank; empty where there are none."""
        return self._ffn("shared", self.shared_intermediate // tensor_parallel, self.hidden_size)

    def dense_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """The FFN of a dense layer on one rank."""
        return self._ffn("mlp", self.dense_intermediate // tensor_parallel, self.hidden_size)

    def expert_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """The FFN of one routed expert on one of the ranks that share its width."""
        return self._ffn("expert", self.expert_intermediate // tensor_parallel, self.row_width)

    def head_gemm(self, tensor_parallel: int = 1) -> Gemm:
        """The output embedding on one rank."""
        return Gemm("head", -(-self.vocab_size // tensor_parallel), self.hidden_size)

    def _ffn(self, name: str, width: int, row: int) -> tuple[Gemm, ...]:
        if not width:
            return ()
        up = (self.expert_matrices - 1) * width
        return (Gemm(f"{name}_up", up, row), Gemm(f"{name}_down", row, width))

    def weight_bytes(self, dtype: str) -> float:
        """Of a weight, with its share of a scale; one of fp8 is for a block of 128 x 128 and counts nothing."""
        return DTYPE_BYTES[dtype] + (1 / self.fp4_block if dtype == "fp4" else 0.0)

    def kv_bytes_per_token(self, dtype: str) -> float:
        """Bytes that all layers cache for one token, before any window lets go of it."""
        width = CACHE_BYTES[dtype]
        layers = self.mixer_of[self.encoder_layers :]  # an encoder caches nothing: the decoder's layers hold its output
        return sum(
            layers.count(number) * (mixer.cached_values_per_token * width + mixer.index_bytes_per_token)
            for number, mixer in enumerate(self.mixers)
        )

    def forward_flops(self, tokens: int, context: float) -> float:
        """FLOPs of `tokens` tokens that each attend to `context` earlier ones; a multiply-add counts two."""
        mixing = sum(layers * mixer.mixing_flops(context) for mixer, layers in self.mixed)
        embedding = self.vocab_size * self.hidden_size  # looking up the input embedding is no FLOP
        used = self.active_parameters - (0 if self.tie_embeddings else embedding)
        return tokens * (2.0 * used + mixing)

    @property
    def routing_digest(self) -> str:
        """Names the models whose routing traces are interchangeable: same name and routing shape."""
        shape = f"{self.name}|{len(self.moe_layers)}|{self.num_experts}|{self.top_k}"
        return hashlib.sha256(shape.encode()).hexdigest()[:16]


def _parameters(mixer: Mixer, hidden: int) -> int:
    return sum(gemm.parameters for gemm in mixer.gemms(hidden)) + mixer.other_parameters


def value_bytes(dtype: str) -> float:
    """Bytes of a value of a row, with its share of a scale."""
    return DTYPE_BYTES[dtype] + SCALE_BYTES[dtype]


def row_bytes(width: int, dtype: str) -> int:
    """Bytes of one token's row on the wire: values and their scales (fp8: 7168 + 224 for DeepSeek-V3)."""
    return round(width * value_bytes(dtype))
