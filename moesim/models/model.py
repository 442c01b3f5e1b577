"""MoEModel: what a model is made of; it knows parameters, FLOPs and bytes of a shape, and nothing of time.

Norms and biases are not counted, nor are multi-token-prediction layers: that is the counting rule of the published
totals this is tested against (both embeddings counted in total and active).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

DTYPE_BYTES: Final[dict[str, float]] = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "fp4": 0.5}


class Gemm(NamedTuple):
    """One weight matrix: y[m, n] = x[m, k] w[k, n] for m tokens."""

    name: str
    n: int
    k: int

    @property
    def parameters(self) -> int:
        """Weights in it."""
        return self.n * self.k


@dataclass(frozen=True)
class Attention:
    """Heads and widths of one attention layer; the low-rank fields are 0 unless kind is "mla"."""

    kind: Literal["mha", "gqa", "mla"]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0

    @property
    def query_head_dim(self) -> int:
        """Width of one query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim if self.kind == "mla" else self.head_dim

    @property
    def cached_values_per_token(self) -> int:
        """Numbers that one layer caches per token: keys and values, or MLA's latent and rotary key."""
        if self.kind == "mla":
            return self.kv_lora_rank + self.qk_rope_head_dim
        return self.num_kv_heads * (self.head_dim + self.v_head_dim)

    def gemms(self, hidden: int, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """Projections of one layer on one of `tensor_parallel` ranks; MLA's down projections are not split."""
        heads = self.num_heads // tensor_parallel
        out = Gemm("o", hidden, heads * self.v_head_dim)
        if self.kind != "mla":
            kv = max(self.num_kv_heads // tensor_parallel, 1) * (self.head_dim + self.v_head_dim)
            return (Gemm("qkv", heads * self.head_dim + kv, hidden), out)
        down = Gemm("qkv_down", self.q_lora_rank + self.kv_lora_rank + self.qk_rope_head_dim, hidden)
        query = heads * self.query_head_dim
        up_q = Gemm("q_up", query, self.q_lora_rank) if self.q_lora_rank else Gemm("q", query, hidden)
        up_kv = Gemm("kv_up", heads * (self.qk_nope_head_dim + self.v_head_dim), self.kv_lora_rank)
        return (down, up_q, up_kv, out)


@dataclass(frozen=True)
class MoEModel:
    """Shape of a transformer. `moe_layers` are model layer indices, none of a dense model; widths are per expert.

    `shared_intermediate` is the total width of the shared experts (0: none), `num_groups`/`topk_groups` the limits of
    group-limited routing (1/1: none), `expert_matrices` 3 for gated experts and 2 for others. `approximations` are
    sentences that every Result has to repeat.
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
    approximations: tuple[str, ...] = ()

    @property
    def routed(self) -> bool:
        """It has routed experts."""
        return bool(self.moe_layers)

    @property
    def expert_parameters(self) -> int:
        """Of one routed expert in one layer."""
        return self.expert_matrices * self.hidden_size * self.expert_intermediate

    @property
    def attention_parameters(self) -> int:
        """Of one layer."""
        return sum(gemm.parameters for gemm in self.attention.gemms(self.hidden_size))

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
        moe = experts * self.expert_parameters + ffn * self.shared_intermediate + self.router_gemm().parameters
        dense = ffn * self.dense_intermediate
        layers = len(self.moe_layers)
        attention = self.num_layers * self.attention_parameters
        return attention + layers * moe + (self.num_layers - layers) * dense + self.embedding_parameters

    def attention_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """Projections of one attention layer on one rank."""
        return self.attention.gemms(self.hidden_size, tensor_parallel)

    def router_gemm(self) -> Gemm:
        """The gate."""
        return Gemm("router", self.num_experts, self.hidden_size)

    def shared_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """The shared experts as one FFN on one rank; empty where there are none."""
        return self._ffn("shared", self.shared_intermediate // tensor_parallel)

    def dense_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """The FFN of a dense layer on one rank."""
        return self._ffn("mlp", self.dense_intermediate // tensor_parallel)

    def expert_gemms(self, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """The FFN of one routed expert on one of the ranks that share its width."""
        return self._ffn("expert", self.expert_intermediate // tensor_parallel)

    def head_gemm(self, tensor_parallel: int = 1) -> Gemm:
        """The output embedding on one rank."""
        return Gemm("head", -(-self.vocab_size // tensor_parallel), self.hidden_size)

    def _ffn(self, name: str, width: int) -> tuple[Gemm, ...]:
        if not width:
            return ()
        up = (self.expert_matrices - 1) * width
        return (Gemm(f"{name}_up", up, self.hidden_size), Gemm(f"{name}_down", self.hidden_size, width))

    def kv_bytes_per_token(self, dtype: str) -> float:
        """Bytes that all layers cache for one token."""
        return self.num_layers * self.attention.cached_values_per_token * DTYPE_BYTES[dtype]

    def forward_flops(self, tokens: int, context: float) -> float:
        """FLOPs of `tokens` tokens that each attend to `context` earlier ones; a multiply-add counts two."""
        attention = self.attention
        scores = 2 * attention.num_heads * (attention.query_head_dim + attention.v_head_dim) * context
        embedding = self.vocab_size * self.hidden_size  # looking up the input embedding is no FLOP
        used = self.active_parameters - (0 if self.tie_embeddings else embedding)
        return tokens * (2.0 * used + self.num_layers * scores)

    @property
    def routing_digest(self) -> str:
        """Names the models whose routing traces are interchangeable: same name and routing shape."""
        shape = f"{self.name}|{len(self.moe_layers)}|{self.num_experts}|{self.top_k}"
        return hashlib.sha256(shape.encode()).hexdigest()[:16]
