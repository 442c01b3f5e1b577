"""A small DeepSeek-V3-like language model: one dense layer, then expert layers with a sigmoid gate and a bias.

The bias enters the choice of experts only, not their weights, and moves by a fixed step against each expert's load:
auxiliary-loss-free balancing (arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Widths of the model; `layers` counts the dense first layer."""

    vocabulary: int = 4096
    hidden: int = 128
    layers: int = 9
    heads: int = 4
    experts: int = 32
    top_k: int = 4
    expert_width: int = 64
    shared_width: int = 64
    dense_width: int = 384
    context: int = 256


class Gate(nn.Module):
    """hidden[T, H] -> (weights[T, k], ids[T, k]), heaviest first."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.top_k = shape.top_k
        self.score = nn.Linear(shape.hidden, shape.experts, bias=False)
        self.register_buffer("bias", torch.zeros(shape.experts))
        self.register_buffer("load", torch.zeros(shape.experts))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.sigmoid(self.score(hidden))
        ids = torch.topk(scores + self.bias, self.top_k, dim=-1).indices
        weights, order = torch.sort(scores.gather(1, ids), dim=-1, descending=True)
        ids = ids.gather(1, order)
        if self.training:
            self.load += torch.bincount(ids.flatten(), minlength=self.load.numel())
        return weights / weights.sum(-1, keepdim=True), ids

    def balance(self, step: float) -> None:
        """Move each bias by `step` against its expert's load, and forget the load."""
        self.bias += step * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class Experts(nn.Module):
    """Gated feed-forward experts and one shared expert."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = Gate(shape)
        self.up = nn.Parameter(torch.randn(shape.experts, shape.hidden, 2 * shape.expert_width) * shape.hidden**-0.5)
        self.down = nn.Parameter(
            torch.randn(shape.experts, shape.expert_width, shape.hidden) * shape.expert_width**-0.5 / 3
        )
        self.shared = FeedForward(shape.hidden, shape.shared_width)

    def forward(self, hidden: Tensor) -> Tensor:
        weights, ids = self.gate(hidden)
        order = torch.argsort(ids.flatten(), stable=True)
        token = order // ids.shape[1]
        counts = torch.bincount(ids.flatten(), minlength=len(self.up)).tolist()
        parts = torch.split(hidden[token], counts)
        outputs = [_expert(rows, self.up[e], self.down[e]) for e, rows in enumerate(parts)]
        weighted = torch.cat(outputs) * weights.flatten()[order].unsqueeze(1)
        return self.shared(hidden).index_add(0, token, weighted)


def _expert(rows: Tensor, up: Tensor, down: Tensor) -> Tensor:
    gate, value = (rows @ up).chunk(2, dim=-1)
    return (functional.silu(gate) * value) @ down


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(hidden, 2 * width) * hidden**-0.5)
        self.down = nn.Parameter(torch.randn(width, hidden) * width**-0.5 / 3)

    def forward(self, hidden: Tensor) -> Tensor:
        return _expert(hidden, self.up, self.down)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden, bias=False)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=False)
        width = shape.hidden // shape.heads
        angle = torch.outer(torch.arange(shape.context), 10000.0 ** (-torch.arange(0, width, 2) / width))
        self.register_buffer("turn", torch.polar(torch.ones_like(angle), angle), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        q, k, v = self.qkv(hidden).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(self._rotate(q), self._rotate(k), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def _rotate(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.turn[: x.shape[2]]).flatten(-2)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, shape: Shape, dense: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.RMSNorm(shape.hidden), nn.RMSNorm(shape.hidden)
        self.attention = Attention(shape)
        self.mlp = FeedForward(shape.hidden, shape.dense_width) if dense else Experts(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x).flatten(0, 1)).view_as(x)


class TinyMoE(nn.Module):
    """ids[B, L] -> logits[B, L, vocabulary]; the embedding is tied."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(shape, dense=layer == 0) for layer in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embedding.weight.T

    @property
    def gates(self) -> list[Gate]:
        """One per expert layer, in the order of the layers."""
        return [block.mlp.gate for block in self.blocks if isinstance(block.mlp, Experts)]
