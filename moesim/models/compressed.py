"""Attention to a window and to blocks of everything before it, each compressed to one key (DeepSeek-V4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from moesim.models.mixer import INDEX_BYTES, Attention, Gemm

FP32: Final = 4  # bytes: unfinished blocks are summed up in it
CACHED: Final = 1  # of a value: fp8 in every engine that has kernels for it


@dataclass(frozen=True)
class Compressed(Attention):
    """Each head's key is its value, one for all heads, `head_dim` wide; queries come by way of `q_lora_rank`, results
    go by way of `out_rank` values for each of `out_groups` groups of heads.

    A query looks at the last `window` tokens and at one key for every `ratio` tokens (0: the window alone): at the
    `selected` of them that an indexer picks (ratio 4, blocks overlap: CSA), or at all of them (128: HCA). Source:
    inference/model.py beside DeepSeek-V4's weights.
    """

    ratio: int = 0
    out_rank: int = 0
    out_groups: int = 1

    @property
    def query_head_dim(self) -> int:
        """Width of one query head."""
        return self.head_dim

    @property
    def by_module(self) -> bool:
        """Whatever its ratio."""
        return True

    @property
    def overlap(self) -> int:
        """Blocks that a token goes into."""
        return 2 if self.index_heads else 1

    @property
    def cached_values_per_token(self) -> float:  # type: ignore[override]
        """What the token's share of a block's key is; windows are a sequence's state."""
        return self.head_dim / self.ratio if self.ratio else 0.0

    @property
    def index_bytes_per_token(self) -> float:  # type: ignore[override]
        """The same of the block's index key."""
        return self.index_dim * INDEX_BYTES / self.ratio if self.index_heads else 0.0

    def state_bytes(self, tensor_parallel: int = 1) -> int:
        """Of one sequence in one layer, whole on every rank: its window, and sums and scores of unfinished blocks."""
        unfinished = 2 * FP32 * self.overlap * self.ratio * self.overlap
        return self.window * self.head_dim * CACHED + unfinished * (self.head_dim + self.index_dim)

    def cached_tokens(self, tokens: int) -> int:
        """All: each is a share of a block."""
        return tokens

    def with_heads(self, heads: int) -> Compressed:
        """`heads` of them, with their groups."""
        groups = max(self.out_groups * heads // self.num_heads, 1)
        return replace(self, num_heads=heads, num_kv_heads=heads, out_groups=groups)

    def gemms(self, hidden: int, tensor_parallel: int = 1) -> tuple[Gemm, ...]:
        """Projections of one layer on one of `tensor_parallel` ranks; down projections, compressor and indexer are
        whole on each. Groups of heads go through matrices of their own, side by side: as many weights as one matrix of
        all their outputs from one group's heads.
        """
        own = self.num_heads // tensor_parallel * self.head_dim
        groups = max(self.out_groups // tensor_parallel, 1)
        down = Gemm("qkv_down", self.q_lora_rank + self.head_dim, hidden)
        out = (Gemm("o_down", groups * self.out_rank, own // groups), Gemm("o", hidden, groups * self.out_rank))
        return (down, Gemm("q_up", own, self.q_lora_rank), *self._compressor(hidden), *out)

    def _compressor(self, hidden: int) -> tuple[Gemm, ...]:
        """Values and scores of tokens in their blocks; of the indexer's too, with its queries and weights of heads."""
        if not self.ratio:
            return ()
        blocks = Gemm("compress", 2 * self.overlap * self.head_dim, hidden)
        if not self.index_heads:
            return (blocks,)
        queries = Gemm("index_q", self.index_heads * self.index_dim, self.q_lora_rank)
        return (blocks, queries, Gemm("index_kw", 2 * self.overlap * self.index_dim + self.index_heads, hidden))

    def mixing_flops(self, context: float) -> float:
        """FLOPs of one token that attends to `context` earlier ones."""
        keys = context / self.ratio if self.ratio else 0.0
        seen = min(context, self.window) + (min(keys, self.selected) if self.selected else keys)
        return 4 * self.num_heads * self.head_dim * seen + 2 * self.index_heads * self.index_dim * keys

    def uneven(self, ways: int) -> str:
        """What `ways` ranks cannot share, "" where they can share everything."""
        if self.num_heads % ways:
            return f"{self.num_heads} heads"
        return f"{self.out_groups} groups of the output" if self.out_groups % ways else ""
