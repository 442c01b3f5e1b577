"""What mixes tokens in a layer: attention over cached keys and values, or a linear recurrence over a state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

INDEX_BYTES: Final = 1  # of a value of an index key: fp8 in every engine
STATE_BYTES: Final = 4  # a recurrent state is kept in fp32: vLLM's and SGLang's default for these models
TAIL_BYTES: Final = 2  # the last inputs of a convolution are kept in bf16


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
    """Heads and widths of one attention layer; the low-rank fields are 0 unless kind is "mla".

    window: tokens that a query looks back at, itself included, 0 for all; gated: queries come with a gate of their
    width for the output (MLA: of its values' width, by a projection of its own). selected: tokens that a query looks
    at, those that an indexer of `index_heads` heads of `index_dim` picks (MLA: one by one, DeepSeek-V3.2; others: in
    blocks, MiniMax-M3), 0 for all; without heads the picks of an earlier layer are used again. cross: it attends to an
    encoder's output as well (T5), by projections of its own: of a token of the prompt those keys and values are cached,
    of an answer's its own. full: every token attends to all of its sequence, as in an encoder.
    """

    kind: Literal["mha", "gqa", "mla"]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    window: int = 0
    gated: bool = False
    selected: int = 0
    index_heads: int = 0
    index_dim: int = 0
    cross: bool = False
    full: bool = False

    @property
    def query_head_dim(self) -> int:
        """Width of one query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim if self.kind == "mla" else self.head_dim

    @property
    def cached_values_per_token(self) -> int:
        """Numbers that one layer caches per token in the cache's dtype: keys and values, or MLA's latent and rotary
        keys.
        """
        if self.kind == "mla":
            return self.kv_lora_rank + self.qk_rope_head_dim
        return self.num_kv_heads * (self.head_dim + self.v_head_dim)

    @property
    def index_bytes_per_token(self) -> int:
        """Bytes of the index key that one layer caches beside them, whatever the cache's dtype."""
        return self.index_dim * self.index_width if self.index_heads else 0

    @property
    def index_width(self) -> int:
        """Bytes of a value of its index keys: MiniMax-M3's are bf16 (256 sequences of 65,536 tokens take 870 us longer
        than of 8,192 on H200: 255 bytes a token at 0.9 of its bandwidth).
        """
        return INDEX_BYTES if self.kind == "mla" else TAIL_BYTES

    @property
    def by_module(self) -> bool:
        """Tables of it time a layer's whole module: projections, indexer, core."""
        return bool(self.selected)

    def with_heads(self, heads: int) -> Attention:
        """`heads` of them, with the key-value heads and, of grouped attention, the index heads that they share."""
        if self.kind == "mla":
            return replace(self, num_heads=heads, num_kv_heads=heads)
        shared = [max(one * heads // self.num_heads, min(one, 1)) for one in (self.num_kv_heads, self.index_heads)]
        return replace(self, num_heads=heads, num_kv_heads=shared[0], index_heads=shared[1])

    @property
    def in_full(self) -> Attention:
        """As in an encoder; of windows, picks and latent attention no kernels in full are known, and they stay."""
        return self if self.kind == "mla" or self.window or self.selected else replace(self, full=True)

    @property
    def other_parameters(self) -> int:
        """None beside its projections."""
        return 0

    def cached_tokens(self, tokens: int) -> int:
        """How many of a sequence's tokens stay cached."""
        return min(tokens, self.window) if self.window else tokens

    def gemms(self, hidden: int, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """Projections of one layer on one of `tensor_parallel` ranks; MLA's down projections are not split."""
        heads = self.num_heads // tensor_parallel
        out = Gemm("o", hidden, heads * self.v_head_dim)
        if self.kind != "mla":
            kv = max(self.num_kv_heads // tensor_parallel, 1) * (self.head_dim + self.v_head_dim)
            up = Gemm("qkv", heads * self.head_dim * (2 if self.gated else 1) + kv, hidden)
            if self.index_heads:
                return (up, self._block_index(hidden, heads), out)
            return (up, out) * (2 if self.cross else 1)
        down = Gemm("qkv_down", self.q_lora_rank + self.kv_lora_rank + self.qk_rope_head_dim, hidden)
        query = heads * self.query_head_dim
        up_q = Gemm("q_up", query, self.q_lora_rank) if self.q_lora_rank else Gemm("q", query, hidden)
        up_kv = Gemm("kv_up", heads * (self.qk_nope_head_dim + self.v_head_dim), self.kv_lora_rank)
        gate = (Gemm("gate", heads * self.v_head_dim, hidden),) if self.gated else ()
        return (down, up_q, up_kv, *gate, *self._indexer(hidden), out)

    def _indexer(self, hidden: int) -> tuple[Gemm, ...]:
        """Queries from the latent ones, one key, and a weight for each head; whole on every rank."""
        if not self.index_heads:
            return ()
        queries = Gemm("index_q", self.index_heads * self.index_dim, self.q_lora_rank or hidden)
        return (queries, Gemm("index_kw", self.index_dim + self.index_heads, hidden))

    def _block_index(self, hidden: int, heads: int) -> Gemm:
        """Index queries, as many heads as there are key-value heads, and one key."""
        queries = max(self.index_heads * heads // self.num_heads, 1)
        return Gemm("index_qk", (queries + 1) * self.index_dim, hidden)

    def mixing_flops(self, context: float) -> float:
        """FLOPs of one token that attends to `context` earlier ones."""
        seen = min(context, self.window or self.selected) if self.window or self.selected else context
        picking = 2 * self.index_heads * self.index_dim * context
        return 2 * self.num_heads * (self.query_head_dim + self.v_head_dim) * seen + picking

    def uneven(self, ways: int) -> str:
        """What `ways` ranks cannot share, "" where they can share everything."""
        if self.num_heads % ways:
            return f"{self.num_heads} heads"
        if self.kind != "mla" and self.num_kv_heads % ways and ways % self.num_kv_heads:
            return f"{self.num_kv_heads} key-value heads"
        return ""


FLOPS_A_CELL: Final = {"gdn": 8, "kda": 9, "mamba2": 5, "mamba1": 6, "lightning": 5}  # decay, read, write, read out


@dataclass(frozen=True)
class Linear:
    """A linear recurrence: each of `value_heads` heads keeps a state of key_dim x value_dim numbers, whatever the
    context. `key_heads` heads of queries and keys are shared by them (Mamba: groups of B and C); a causal convolution
    of `conv` taps runs over queries, keys and values first (0: none). rank: of a low-rank projection of steps or gates;
    full_gate: the output's gate is a whole projection (Kimi-K3).

    gdn: gated delta net (Qwen3-Next); kda: Kimi delta attention; mamba1, mamba2; lightning: MiniMax-01.
    """

    kind: Literal["gdn", "kda", "mamba2", "mamba1", "lightning"]
    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    conv: int = 4
    rank: int = 0
    full_gate: bool = False

    def channels(self, tensor_parallel: int = 1) -> int:
        """Of the convolution, on one rank."""
        if not self.conv:
            return 0
        values = self.value_heads * self.value_dim // tensor_parallel
        if self.kind == "mamba1":
            return values
        return 2 * max(self.key_heads // tensor_parallel, 1) * self.key_dim + values

    def cells(self, tensor_parallel: int = 1) -> int:
        """Numbers of one layer's state of a sequence, on one rank."""
        return self.value_heads // tensor_parallel * self.key_dim * self.value_dim

    def state_bytes(self, tensor_parallel: int = 1) -> int:
        """Of one sequence in one layer on one rank: the state and the convolution's last inputs."""
        tail = self.channels(tensor_parallel) * max(self.conv - 1, 0) * TAIL_BYTES
        return self.cells(tensor_parallel) * STATE_BYTES + tail

    @property
    def cached_values_per_token(self) -> int:
        """None: a state does not grow."""
        return 0

    index_bytes_per_token = 0

    @property
    def other_parameters(self) -> int:
        """Taps of the convolution, and Mamba-1's decay of every cell."""
        return self.channels() * self.conv + (self.cells() if self.kind == "mamba1" else 0)

    def cached_tokens(self, tokens: int) -> int:
        """None."""
        return 0

    def gemms(self, hidden: int, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """Projections of one layer on one of `tensor_parallel` ranks; low-rank ones down are not split."""
        heads = self.value_heads // tensor_parallel
        values, keys = heads * self.value_dim, max(self.key_heads // tensor_parallel, 1) * self.key_dim
        out = Gemm("o", hidden, values)
        if self.kind == "mamba1":
            steps = Gemm("steps_down", self.rank + 2 * self.key_dim, values)
            return (Gemm("in", 2 * values, hidden), steps, Gemm("steps_up", values, self.rank), out)
        if self.kind == "kda" and self.full_gate:
            gates = (Gemm("gates_down", self.rank, hidden), Gemm("gates_up", keys, self.rank))
            return (Gemm("qkvg", 2 * keys + 2 * values + heads, hidden), *gates, out)
        if self.kind == "kda":
            gates = (Gemm("gates_down", 2 * self.rank, hidden), Gemm("gates_up", keys + values, self.rank))
            return (Gemm("qkv", 2 * keys + values + heads, hidden), *gates, out)
        scalars = {"gdn": 2 * heads, "mamba2": heads, "lightning": 0}[self.kind]  # write strength and decay, or step
        return (Gemm("in", 2 * keys + 2 * values + scalars, hidden), out)

    def mixing_flops(self, context: float) -> float:
        """FLOPs of one token; the context does not matter."""
        return FLOPS_A_CELL[self.kind] * self.cells() + 2 * self.channels() * self.conv

    def uneven(self, ways: int) -> str:
        """What `ways` ranks cannot share, "" where they can share everything."""
        if self.value_heads % ways:
            return f"{self.value_heads} heads of the recurrence"
        if self.key_heads % ways and ways % self.key_heads:
            return f"{self.key_heads} key heads of the recurrence"
        return ""


@dataclass(frozen=True)
class NoMixer:
    """A layer that mixes no tokens: only its FFN or its experts are there (Nemotron-H)."""

    cached_values_per_token = index_bytes_per_token = other_parameters = 0

    def cached_tokens(self, tokens: int) -> int:
        """None."""
        return 0

    def gemms(self, hidden: int, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """None."""
        return ()

    def mixing_flops(self, context: float) -> float:
        """None."""
        return 0.0

    def uneven(self, ways: int) -> str:
        """Nothing to share."""
        return ""


Mixer = Attention | Linear | NoMixer
