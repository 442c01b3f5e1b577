"""The compute of one layer, priced: which kernels a rank launches for its tokens, forward and backward.

All results are Work, float64[ranks] per error family. GEMM shapes come from the model, seconds from the CostModel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moesim.costs import CostModel, Estimate
from moesim.layout import UNQUANTISED, Spread
from moesim.models import Attention, Gemm, Linear, Mixer, MoEModel, NoMixer
from moesim.routing.routers import Chores
from moesim.schedules import Way
from moesim.step.batch import Alike, Batch, Phase, alike, windowed
from moesim.step.router_work import router_work
from moesim.step.small_kernels import LOSS_BYTES, SORT_PASSES, permute_rows, rotary_bytes
from moesim.step.work import CostLog, Floats, Work

ACTIVATION_BYTES = 2  # residual stream and norms are bf16 in every engine and stack looked at
GATED_PASSES = 3  # the gated norm behind a recurrence reads its output and the gate, and writes
NORM_PASSES = 4  # a norm with residual add reads two tensors and writes two
BARE_PASSES = 2  # and without reads one and writes one
ROUTER_BYTES = 4  # router scores are fp32
SMALL = "elementwise"
WEIGHT_SHARE = {"gemm": 0.5, "experts": 0.5}  # of a backward pass: both gradients of a GEMM multiply as much as it does


@dataclass(frozen=True)
class Precision:
    """Dtypes of the weights that GEMMs read and of the KV cache; the experts may have their own."""

    weights: str
    experts: str
    kv_cache: str


@dataclass(frozen=True)
class LayerOps:
    """Prices the work of one layer of `model` as it is spread over ranks; every answer is noted in `log`.

    number: of the layer's mixer in `model.mixers`.
    """

    model: MoEModel
    costs: CostModel
    precision: Precision
    spread: Spread
    log: CostLog
    number: int = 0

    def at(self, layer: int) -> LayerOps:
        """The same with the mixer of that layer; the head has none."""
        return self.with_mixer(self.model.mixer_of[layer]) if layer >= 0 else self

    def with_mixer(self, number: int) -> LayerOps:
        """The same with that mixer of the model."""
        return self if number == self.number else replace(self, number=number)

    @property
    def mixer(self) -> Mixer:
        """What mixes tokens in the layer that is priced."""
        return self.model.mixers[self.number]

    def attention(self, batch: Batch) -> Work:
        """Projections, core and norm of one attention layer. A tensor-parallel group attends to all its tokens."""
        return self.projections(batch) + self.core(batch) + self.norm(batch) + self.rotary(batch)

    def projections(self, batch: Batch) -> Work:
        """GEMMs of one attention layer."""
        return self._gemms(self.spread.mixer_gemms(self.number), self._group_tokens(batch))

    def attention_prepare(self, batch: Batch) -> Work:
        """Norm and all projections but the output's: the first of two steps of attention."""
        gemms = self._gemms(self.spread.mixer_gemms(self.number)[:-1], self._group_tokens(batch))
        return gemms + self.norm(batch) + self.rotary(batch)

    def attention_core(self, batch: Batch) -> Work:
        """Core and output projection: the second step. Both together are `attention`."""
        return self._gemms(self.spread.mixer_gemms(self.number)[-1:], self._group_tokens(batch)) + self.core(batch)

    def up_projections(self, batch: Batch) -> Work:
        """Of latent attention: queries, keys and values of the latents, rotated; nothing of other attention."""
        if getattr(self.mixer, "kind", "") != "mla":
            return Work()
        ups = self.spread.mixer_gemms(self.number)[1:3]  # after them a gate may come, which is none of the latents
        return self._gemms(ups, self._group_tokens(batch)) + self.rotary(batch)

    def core(self, batch: Batch) -> Work:
        """The attention core alone: scores, softmax, values; of decoded tokens, and of chunks of prompts.

        Tables hold n equal sequences. Each row is priced in a group of n like itself, n the rows of its kind in its
        tensor-parallel group, and costs an nth of that: an even batch costs what the table says, and no mean length is
        put through a price that is not linear in it.
        """
        return self._core(batch, Phase.DECODE, self.log.work) + self._core(batch, Phase.PREFILL, self.log.work)

    def core_seconds(self, batch: Batch) -> Work:
        """The same without what it demands: half the time, for clocks that are asked often."""
        return self._core(batch, Phase.DECODE, self.log.seconds) + self._core(batch, Phase.PREFILL, self.log.seconds)

    def _core(self, batch: Batch, phase: Phase, noted: Callable[[list[Estimate]], Work]) -> Work:
        if not np.any(batch.phase == phase):
            return Work()
        ways = self.spread.tensor
        kinds = alike(batch, phase, ways)
        estimates = self.mixing(phase.name.lower(), kinds, batch.training)
        share = kinds.count / kinds.number
        return noted(estimates).shared_out(kinds.group, share, batch.ranks // ways).repeated(ways)

    def mixing(self, phase: str, kinds: Alike, training: bool = False) -> list[Estimate]:
        """The kernels of one rank; a recurrence ends with a norm that its output's gate goes into. Training has a core
        and counts its small kernels; serving has an engine's module.
        """
        mixer = self.mixer
        if isinstance(mixer, NoMixer):
            return []
        if isinstance(mixer, Linear):
            gated = kinds.query * kinds.number * (GATED_PASSES * ACTIVATION_BYTES * mixer.value_heads * mixer.value_dim)
            kernels = self.costs.recurrence(phase, kinds.query, kinds.number, mixer, self.spread.tensor)
            return [*kernels, self.costs.elementwise(gated / self.spread.tensor)]
        if mixer.full:
            heads = mixer.num_heads // self.spread.tensor
            return [self.costs.full_attention(kinds.query, kinds.number, mixer, heads, self.precision.kv_cache)]
        if mixer.by_module:
            rest = (mixer, self.model.hidden_size, self.spread.tensor, self.precision.kv_cache)
            return [self.costs.sparse_attention(phase, kinds.query, kinds.context, kinds.number, *rest)]
        rows = windowed(kinds, mixer.window) if mixer.window else (kinds.query, kinds.context, kinds.number)
        asked = (phase, *rows, mixer, mixer.num_heads // self.spread.tensor, self.precision.kv_cache)
        if mixer.kind == "mla" and not training:
            return [self.costs.latent_attention(*asked, self.precision.weights)]
        return [self.costs.attention(*asked)]

    def rotary(self, batch: Batch) -> Work:
        """Queries and keys rotated, in training; its backward pass moves the same."""
        mixer = self.mixer
        if not batch.training or not isinstance(mixer, Attention):
            return Work()
        each = rotary_bytes(mixer, mixer.num_heads // self.spread.tensor, self.spread.kv_heads(mixer))
        return self._elementwise(self._group_tokens(batch) * each)

    def permuted(self, batch: Batch) -> Work:
        """Tokens copied in order of where they go, and results summed, in training; backward the same."""
        if not batch.training:
            return Work()
        row = ACTIVATION_BYTES * self.model.row_width
        return self._elementwise(batch.tokens_of_rank * (permute_rows(self.model.top_k) * row))

    def sorted_rows(self, rows: npt.NDArray[np.int64], received: int | None = None) -> Work:
        """rows int64[ranks, slots of a rank] put in order of experts, and back in bf16, in training; backward the same.
        received: bytes of a row as it came, by default of bf16.
        """
        result = ACTIVATION_BYTES * self.model.row_width
        moved = SORT_PASSES * ((result if received is None else received) + result) if rows.shape[1] > 1 else 0
        return self._elementwise(rows.sum(axis=1) * moved)

    def loss(self, batch: Batch) -> Work:
        """Softmax and cross entropy of the rank's part of the logits, in training; backward the same."""
        if not batch.training:
            return Work()
        return self._elementwise(self.group_head_rows(batch) * (LOSS_BYTES * self.spread.head_gemm().n))

    def norm(self, batch: Batch) -> Work:
        """Norm and residual add over the tokens that the rank has between attention and FFN; hyper-connections add by
        kernels of their own.
        """
        tokens, hidden = self._residual_tokens(batch), self.model.hidden_size
        if not self.model.hyper:
            return self._elementwise(tokens * (NORM_PASSES * ACTIVATION_BYTES * hidden))
        alone = self._elementwise(tokens * (BARE_PASSES * ACTIVATION_BYTES * hidden))
        return self._hyper(tokens) + alone

    def _hyper(self, tokens: npt.NDArray[np.int64]) -> Work:
        return self.log.work(self.costs.hyper(tokens, self.model.hidden_size, self.model.hyper))

    def router(self, batch: Batch, chores: Chores | None = None) -> Work:
        """Norm, then the router's chores; without any the gate GEMM, and top-k over its scores. Where experts work in a
        latent space, also the ways there and back.
        """
        rows = self._residual_tokens(batch)
        beside = self._gemms(self.model.latent_gemms(), rows) + self.norm(batch)
        if chores is not None:
            experts = self.spread.expert_parameters * self.model.weight_bytes(self.precision.experts)
            return router_work(self.chores_here(chores), self.costs, self.log, experts) + beside
        scores = self._elementwise(rows * (2 * ROUTER_BYTES * self.model.num_experts))
        return self._gemms((self.model.router_gemm(),), rows, UNQUANTISED) + scores + beside

    def shared(self, batch: Batch) -> Work:
        """The shared expert: the rank's part of it over its group's tokens, or all of it over the rank's own."""
        ways = self.spread.shared_ways
        rows = self._group_tokens(batch) if ways > 1 else batch.tokens_of_rank
        return self._ffn(self.spread.shared_gemms(), self.model.shared_intermediate // ways, rows)

    def dense(self, batch: Batch) -> Work:
        """The rank's part of the FFN of a dense layer over its group's tokens, with its norm."""
        width = self.model.dense_intermediate // self.spread.tensor
        return self._ffn(self.spread.dense_gemms(), width, self._group_tokens(batch)) + self.norm(batch)

    def experts(self, rows: npt.NDArray[np.int64], training: bool, choices: npt.ArrayLike | None = None) -> Work:
        """rows int64[ranks, slots of a rank] -> the expert FFNs of each rank. choices: see CostModel.experts.

        Serving engines run one fused operator. Training is priced as dense GEMMs of m = rows of each expert: the fused
        operators' tables hold other work and saturate at training sizes (2.8 to 3.5 ms from GEMMs, 4.7 to 7.4 from
        those tables, 2.92 measured in DeepSeek's training profile).
        """
        model = self.model
        if training:
            return self.trained_experts(self.expert_gemms(rows), rows)
        shape = (model.row_width, self.spread.expert_width, self.precision.experts, model.expert_matrices)
        return self.log.work([self.costs.experts(rows, *shape, choices)])

    def expert_gemms(self, rows: npt.NDArray[np.int64]) -> Work:
        """rows int64[...] of one expert each -> their GEMMs."""
        return self._gemms(self.spread.expert_gemms(), rows, self.precision.experts)

    def trained_experts(self, gemms: Work, rows: npt.NDArray[np.int64]) -> Work:
        """rows int64[ranks, slots] and the GEMMs of each -> all slots of a rank, one after the other."""
        return gemms.summed() + self._activation(rows.sum(axis=1))

    def _activation(self, rows: npt.NDArray[np.int64]) -> Work:
        width = self.model.expert_matrices * self.spread.expert_width
        return self._elementwise(rows * (ACTIVATION_BYTES * width))

    def head(self, batch: Batch) -> Work:
        """The rank's part of the output embedding over its group's tokens that go through it."""
        return self._gemms((self.spread.head_gemm(),), self.group_head_rows(batch), UNQUANTISED)

    def group_head_rows(self, batch: Batch) -> npt.NDArray[np.int64]:
        """int64[ranks]: tokens of the rank's tensor-parallel group that go through the output embedding."""
        return self._of_group(batch.head_rows)

    def accumulate_gradients(self, ranks: int, parameters: float, width: int) -> Work:
        """Read and write of the sums of weight gradients, of `width` bytes a parameter, on each of `ranks` ranks.

        Source: DeepSeek's training profile (profile-data @4496024), where weight gradients take the GEMM plus this with
        sums in fp32.
        """
        return self._elementwise(np.full(ranks, 2.0 * width * parameters))

    def added_up(self, ranks: int, gemms: Iterable[Gemm], way: Way, width: int) -> Work:
        """`accumulate_gradients` of those weights, where the pass has their gradients."""
        if way == Way.BACKWARD_DATA:
            return Work()
        return self.accumulate_gradients(ranks, sum(gemm.parameters for gemm in gemms), width)

    def update(self, ranks: int, moved: float) -> Work:
        """The optimizer on each of `ranks` ranks: `moved` bytes read and written."""
        return self._elementwise(np.full(ranks, moved))

    def attention_backward(self, batch: Batch, way: Way = Way.BACKWARD) -> Work:
        """Input and weight gradients of the projections, the core's backward, and the norm's."""
        gemms = self.projections(batch)
        norm = self.backward("elementwise", self.norm(batch), way)
        norm += Work() if way == Way.BACKWARD_WEIGHT else self.rotary(batch)
        return self.backward("gemm", gemms, way) + self.backward("attention", self.core(batch), way) + norm

    def backward(self, op: str, forward: Work, way: Way = Way.BACKWARD) -> Work:
        """The backward pass of `forward`, or the `way`'s share of it, by the profile's factor for `op`; assumed where
        nothing was measured. Small kernels stand before the GEMM that gives a gradient of inputs, or behind it.
        """
        whole, of_weights = forward.times(self.costs.backward[op]), WEIGHT_SHARE.get(op, 0.0)
        if way == Way.BACKWARD_WEIGHT:
            return whole.without(SMALL).times(of_weights)
        if way == Way.BACKWARD_DATA:
            return whole.without(SMALL).times(1 - of_weights) + whole.only(SMALL)
        return whole

    def _ffn(self, gemms: Iterable[Gemm], width: int, rows: npt.NDArray[np.int64]) -> Work:
        moved = rows * (ACTIVATION_BYTES * width * self.model.expert_matrices)
        return self._gemms(gemms, rows) + self._elementwise(moved)

    def _gemms(self, gemms: Iterable[Gemm], rows: npt.NDArray[np.int64], dtype: str | None = None) -> Work:
        used = dtype or self.precision.weights
        return self.log.work([self.costs.gemm(rows, gemm.n, gemm.k, used) for gemm in gemms])

    def _elementwise(self, moved: npt.NDArray[np.int64] | Floats) -> Work:
        return self.log.work([self.costs.elementwise(moved)])

    def _group_tokens(self, batch: Batch) -> npt.NDArray[np.int64]:
        return self._of_group(batch.tokens_of_rank)

    def _residual_tokens(self, batch: Batch) -> npt.NDArray[np.int64]:
        """int64[ranks]: tokens of the residual stream that a rank has between attention and FFN."""
        return batch.tokens_of_rank if self.spread.residual == "sliced" else self._group_tokens(batch)

    def chores_here(self, chores: Chores) -> Chores:
        """Those of a rank's own tokens -> those of all that it has: without slices every rank routes its group's."""
        if self.spread.residual == "sliced":
            return chores
        gemms = tuple((self._of_group(rows), n, k) for rows, n, k in chores.gemms)
        return replace(
            chores,
            gemms=gemms,
            moved=tuple(map(self._of_group, chores.moved)),
            sets=tuple(map(self._of_group, chores.sets)),
            buffers=tuple(map(self._of_group, chores.buffers)),
        )

    def _of_group(self, own: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[ranks] of each rank -> the sum over its tensor-parallel group."""
        ways = self.spread.tensor
        return np.repeat(own.reshape(-1, ways).sum(axis=1), ways)
