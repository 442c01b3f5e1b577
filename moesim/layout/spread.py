"""How each tensor of a model is spread over the ranks of a layout. Time and memory both ask here, so they agree.

| tensor | on one rank |
|---|---|
| query and output projection, MLA's up projections | heads / tp |
| key and value projection, KV cache | KV heads / tp; a head is replicated where there are fewer heads than ranks |
| heads, states and convolutions of a linear recurrence | heads / tp |
| MLA's down projections and its cached latent | whole: every head needs the latent |
| FFN of a dense layer | width / tp |
| shared expert | width / tp; whole where each rank serves its own slice of the tokens (`residual`) |
| router, projections to a latent row | whole |
| embedding and head | vocabulary / tp |
| routed expert | width / etp, on the ranks of its slots |

tp: `tensor_parallel_size`, etp: `expert_tensor_parallel_size`. Data-parallel ranks hold replicas of all
but the experts.
Sources: Megatron-LM (tensor and sequence parallelism, expert tensor parallelism); vLLM and SGLang, model files of
DeepSeek-V2 to V3 and Qwen3-MoE: QKVParallelLinear repeats KV heads, `fused_qkv_a_proj` is replicated, the shared expert
is replicated under sequence-parallel MoE and behind DeepEP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from moesim.errors import BadInput
from moesim.layout.layout import Layout
from moesim.models import CACHE_BYTES, Attention, Compressed, Gemm, Linear, Mixer, MoEModel, NoMixer

UNQUANTISED: Final = "bf16"  # router, embedding and head stay so in fp8 and fp4 checkpoints
TENSOR, EXPERT_TENSOR = "parallel.tensor_parallel_size", "parallel.expert_tensor_parallel_size"
Residual = Literal["sliced", "replicated"]


class Part(NamedTuple):
    """Weight matrices of one layer on one rank, and how many layers have them."""

    name: str
    gemms: tuple[Gemm, ...]
    layers: int
    dtype: str

    @property
    def parameters(self) -> int:
        """On one rank, all layers."""
        return self.layers * sum(gemm.parameters for gemm in self.gemms)


@dataclass(frozen=True)
class Spread:
    """Shapes of `model` on one rank. tensor, expert_tensor: ranks that share a layer's heads and widths, an expert's
    width.

    residual: between attention and FFN each rank of a tensor group has a slice of the group's tokens ("sliced":
    all-gather before, reduce-scatter after; sequence parallelism), or all of them ("replicated": all-reduce after).
    """

    model: MoEModel
    tensor: int = 1
    expert_tensor: int = 1
    residual: Residual = "sliced"
    training: bool = False

    @classmethod
    def of(cls, model: MoEModel, layout: Layout, *, training: bool, replicated: bool = False) -> Spread:
        """The usual spread: engines without expert parallelism, and with it where it is `replicated`, have all tokens
        on every rank of a tensor group, everything else slices them. Raises BadInput where a degree does not divide
        what it has to, with the nearest that does.
        """
        alone = replicated or layout.expert_parallel == 1
        alone &= layout.expert_parallel * layout.expert_tensor_parallel == layout.tensor_parallel
        residual: Residual = "replicated" if alone and not training else "sliced"
        found = cls(model, layout.tensor_parallel, layout.expert_tensor_parallel, residual, training)
        _check(TENSOR, found.tensor, layout.world, found._splits)
        _check(EXPERT_TENSOR, found.expert_tensor, layout.world, found._splits_expert)
        return found

    @property
    def words(self) -> str:
        """What tensor parallelism does, "" where there is none."""
        if self.tensor * self.expert_tensor == 1:
            return ""
        after = "experts" if self.model.routed else "dense FFN"
        rings = {
            "replicated": f"all-reduce after attention and after {after}",
            "sliced": "all-gather before and reduce-scatter after attention and dense FFN (sequence parallel)",
        }
        experts = f"{self.expert_tensor} ranks share each expert's width" if self.expert_tensor > 1 else "whole experts"
        heads = f"{self.tensor} ranks share heads: {rings[self.residual]}"
        return f"{heads}; {experts}" if self.model.routed else heads

    @property
    def shared_ways(self) -> int:
        """Ranks that share the shared expert."""
        return self.tensor if self.residual == "replicated" or self.training else 1

    def kv_heads(self, attention: Attention) -> int:
        """Key-value heads of one rank, replicas included."""
        return max(attention.num_kv_heads // self.tensor, 1)

    @property
    def expert_width(self) -> int:
        """Intermediate width of an expert on one rank."""
        return self.model.expert_intermediate // self.expert_tensor

    @property
    def expert_parameters(self) -> int:
        """Of one slot, in one layer, on one rank."""
        return sum(gemm.parameters for gemm in self.expert_gemms())

    def mixer_gemms(self, mixer: int = 0) -> tuple[Gemm, ...]:
        """Projections of one layer with that mixer, by its number in the model."""
        return self.model.mixer_gemms(self.tensor, mixer)

    def dense_gemms(self) -> tuple[Gemm, ...]:
        """FFN of a dense layer."""
        return self.model.dense_gemms(self.tensor)

    def shared_gemms(self) -> tuple[Gemm, ...]:
        """The shared experts."""
        return self.model.shared_gemms(self.shared_ways)

    def expert_gemms(self) -> tuple[Gemm, ...]:
        """One routed expert."""
        return self.model.expert_gemms(self.expert_tensor)

    def head_gemm(self) -> Gemm:
        """The output embedding."""
        return self.model.head_gemm(self.tensor)

    def parts(self, weights: str) -> Iterator[Part]:
        """All that a rank holds beside experts, the vocabulary's tables last; `weights`: dtype of what quantised
        checkpoints quantise.
        """
        model, moe = self.model, len(self.model.moe_layers)
        tables = 1 if model.tie_embeddings else 2
        for number, (mixer, layers) in enumerate(model.mixed):
            if not isinstance(mixer, NoMixer):
                name = "attention" if isinstance(mixer, Attention) else "linear attention"
                yield Part(f"{name} weights", self.mixer_gemms(number), layers, weights)
        yield Part("dense FFN weights", self.dense_gemms(), model.dense_layers, weights)
        yield Part("shared expert weights", self.shared_gemms(), moe, weights)
        yield Part("router weights", (model.router_gemm(),), moe, UNQUANTISED)
        if model.latent:
            yield Part("latent projection weights", model.latent_gemms(), moe, weights)
        yield Part("embedding weights", (self.head_gemm(),), tables, UNQUANTISED)

    def layer_parameters(self, layer: int) -> int:
        """Parameters of a layer on one rank, routed experts apart."""
        model, gemms = self.model, list[Gemm]()
        mixer, _ = model.mixed[model.mixer_of[layer]]
        if not isinstance(mixer, NoMixer):
            gemms += self.mixer_gemms(model.mixer_of[layer])
        if layer in model.moe_layers:
            gemms += [*self.shared_gemms(), model.router_gemm(), *(model.latent_gemms() if model.latent else ())]
        elif layer not in model.bare_layers:
            gemms += self.dense_gemms()
        return sum(gemm.parameters for gemm in gemms)

    def kv_bytes_per_token(self, dtype: str) -> float:
        """Bytes that one rank caches, in all layers, for one token of its tensor group, before windows let go."""
        return self.kv_bytes(dtype, 1)

    def kv_bytes(self, dtype: str, tokens: int) -> float:
        """Bytes that one rank caches for a sequence of `tokens` tokens of its tensor group: windowed layers keep their
        window.
        """
        width = CACHE_BYTES[dtype]
        return sum(
            layers * mixer.cached_tokens(tokens) * (self._cached(mixer) * width + mixer.index_bytes_per_token)
            for mixer, layers in self.model.mixed
        )

    def held(self, part: Part) -> float:
        """Bytes of a part, all layers."""
        return part.parameters * self.model.weight_bytes(part.dtype)

    @property
    def state_bytes(self) -> int:
        """Bytes that recurrences and windows of compressed attention of one rank keep for a sequence of its tensor
        group, however long.
        """
        return sum(layers * mixer.state_bytes(self.tensor) for mixer, layers in self.model.mixed
                   if isinstance(mixer, Linear | Compressed))  # fmt: skip

    def _cached(self, mixer: Mixer) -> int:
        """Values of a token in one layer."""
        each = mixer.cached_values_per_token
        if not isinstance(mixer, Attention) or mixer.kind == "mla":
            return each
        return each // mixer.num_kv_heads * self.kv_heads(mixer)

    def _splits(self, ways: int) -> str:
        """What `ways` tensor-parallel ranks cannot share evenly, "" where they can share everything."""
        model = self.model
        if found := next((one for one in (mixer.uneven(ways) for mixer, _ in model.mixed) if one), ""):
            return found
        dense = model.dense_intermediate if model.dense_layers else 0
        if dense % ways:
            return f"{dense} columns of the dense FFN"
        if self.shared_ways > 1 and model.shared_intermediate % ways:
            return f"{model.shared_intermediate} columns of the shared expert"
        return ""

    def _splits_expert(self, ways: int) -> str:
        width = self.model.expert_intermediate
        return f"{width} columns of an expert" if width % ways else ""


def _check(key: str, degree: int, world: int, unsplit: Callable[[int], str]) -> None:
    """Raises BadInput where `degree` ranks cannot share something, with the nearest degrees that can."""
    if what := unsplit(degree):
        can = [ways for ways in range(1, world + 1) if world % ways == 0 and not unsplit(ways)]
        near = sorted(can, key=lambda ways: (abs(ways - degree), ways))[:2]
        name = key.partition(".")[2]
        raise BadInput(
            f"{what} do not divide over {name} {degree}",
            where=key,
            way_out=f"{name}: {' or '.join(str(ways) for ways in sorted(near))}",
        )
