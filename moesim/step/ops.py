"""The compute of one layer, priced: which kernels a rank launches for its tokens, forward and backward.

All results are Work, float64[ranks] per error family. GEMM shapes come from the model, seconds from the CostModel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.costs import CostModel
from moesim.models import DTYPE_BYTES, Gemm, MoEModel
from moesim.routing.routers import Chores
from moesim.step.batch import Batch, Phase
from moesim.step.router_work import router_work
from moesim.step.work import CostLog, Floats, Work

ACTIVATION_BYTES = 2  # residual stream and norms are bf16 in every engine and stack looked at
NORM_PASSES = 4  # a norm with residual add reads two tensors and writes two
ROUTER_BYTES = 4  # router scores are fp32


@dataclass(frozen=True)
class Precision:
    """Dtypes of the weights that GEMMs read and of the KV cache; the experts may have their own."""

    weights: str
    experts: str
    kv_cache: str


@dataclass(frozen=True)
class LayerOps:
    """Prices the work of one layer of `model` on tensor-parallel ranks; every answer is noted in `log`."""

    model: MoEModel
    costs: CostModel
    precision: Precision
    tensor_parallel: int
    log: CostLog

    def attention(self, batch: Batch) -> Work:
        """Projections, core and norm of one attention layer. A tensor-parallel group attends to all its tokens."""
        rows = self._group_tokens(batch)
        return self._gemms(self.model.attention_gemms(self.tensor_parallel), rows) + self.core(batch) + self.norm(batch)

    def core(self, batch: Batch) -> Work:
        """The attention core alone: scores, softmax, values."""
        ranks = self._group_sequences(batch)
        heads = self.model.attention.num_heads // self.tensor_parallel
        estimate = self.costs.attention(
            "decode" if batch.phase == "decode" else "prefill",
            *ranks,
            self.model.attention,
            heads,
            self.precision.kv_cache,
        )
        return self.log.work([estimate])

    def norm(self, batch: Batch) -> Work:
        """Norm and residual add over the rank's own tokens."""
        moved = batch.tokens_of_rank * (NORM_PASSES * ACTIVATION_BYTES * self.model.hidden_size)
        return self._elementwise(moved)

    def router(self, batch: Batch, chores: Chores | None = None) -> Work:
        """Norm, then the router's chores; without any the gate GEMM, and top-k over its scores."""
        if chores is not None:
            experts = self.model.expert_parameters * DTYPE_BYTES[self.precision.experts]
            return router_work(chores, self.costs, self.log, experts) + self.norm(batch)
        rows = batch.tokens_of_rank
        scores = self._elementwise(rows * (2 * ROUTER_BYTES * self.model.num_experts))
        return self._gemms((self.model.router_gemm(),), rows, "bf16") + scores + self.norm(batch)

    def shared(self, batch: Batch) -> Work:
        """The shared expert over the rank's own tokens."""
        return self._ffn(self.model.shared_gemms(), self.model.shared_intermediate, batch.tokens_of_rank)

    def dense(self, batch: Batch) -> Work:
        """The FFN of a dense layer, replicated over data-parallel ranks, with its norm."""
        return self._ffn(self.model.dense_gemms(), self.model.dense_intermediate, batch.tokens_of_rank) + self.norm(
            batch
        )

    def experts(self, rows: npt.NDArray[np.int64], phase: Phase, choices: int | None = None) -> Work:
        """rows int64[ranks, slots of a rank] -> the expert FFNs of each rank. choices: see CostModel.experts.

        Serving engines run one fused operator. Training is priced as dense GEMMs of m = rows of each expert: the fused
        operators' tables hold other work and saturate at training sizes (2.8 to 3.5 ms from GEMMs, 4.7 to 7.4 from
        those tables, 2.92 measured in DeepSeek's training profile).
        """
        model = self.model
        if phase == "train":
            return self._summed(model.expert_gemms(), rows) + self._activation(rows.sum(axis=1))
        shape = (model.hidden_size, model.expert_intermediate, self.precision.experts, model.expert_matrices)
        return self.log.work([self.costs.experts(rows, *shape, choices)])

    def _summed(self, gemms: Iterable[Gemm], rows: npt.NDArray[np.int64]) -> Work:
        """rows int64[ranks, slots]: the GEMMs of all slots, one after the other."""
        each = self._gemms(gemms, rows, self.precision.experts)
        return Work({family: seconds.sum(axis=1) for family, seconds in each.seconds.items()})

    def _activation(self, rows: npt.NDArray[np.int64]) -> Work:
        width = self.model.expert_matrices * self.model.expert_intermediate
        return self._elementwise(rows * (ACTIVATION_BYTES * width))

    def head(self, batch: Batch) -> Work:
        """Output embedding: one row per decoded or prefilled sequence, every row in training."""
        rows = batch.tokens_of_rank if batch.phase == "train" else np.bincount(batch.rank, minlength=batch.ranks)
        return self._gemms((self.model.head_gemm(self.tensor_parallel),), rows * self.tensor_parallel, "bf16")

    def accumulate_gradients(self, ranks: int, parameters: float) -> Work:
        """Read and write of the fp32 sums of weight gradients: 8 bytes a parameter, on each of `ranks` ranks.

        Source: DeepSeek's training profile (profile-data @4496024), where weight gradients take the GEMM plus this.
        """
        return self._elementwise(np.full(ranks, 8.0 * parameters))

    def update(self, ranks: int, moved: float) -> Work:
        """The optimizer on each of `ranks` ranks: `moved` bytes read and written."""
        return self._elementwise(np.full(ranks, moved))

    def attention_backward(self, batch: Batch) -> Work:
        """Input and weight gradients of the projections, the core's backward, and the norm's."""
        gemms = self._gemms(self.model.attention_gemms(self.tensor_parallel), self._group_tokens(batch))
        norm = self.backward("elementwise", self.norm(batch))
        return self.backward("gemm", gemms) + self.backward("attention", self.core(batch)) + norm

    def backward(self, op: str, forward: Work) -> Work:
        """The backward pass of `forward`, by the profile's factor for `op`; assumed where nothing was measured."""
        return forward.times(self.costs.backward[op])

    def _ffn(self, gemms: Iterable[Gemm], width: int, rows: npt.NDArray[np.int64]) -> Work:
        moved = rows * (ACTIVATION_BYTES * width * self.model.expert_matrices)
        return self._gemms(gemms, rows) + self._elementwise(moved)

    def _gemms(self, gemms: Iterable[Gemm], rows: npt.NDArray[np.int64], dtype: str | None = None) -> Work:
        used = dtype or self.precision.weights
        return self.log.work([self.costs.gemm(rows, gemm.n, gemm.k, used) for gemm in gemms])

    def _elementwise(self, moved: npt.NDArray[np.int64] | Floats) -> Work:
        return self.log.work([self.costs.elementwise(moved)])

    def _group_tokens(self, batch: Batch) -> npt.NDArray[np.int64]:
        grid = batch.tokens_of_rank.reshape(-1, self.tensor_parallel)
        return np.repeat(grid.sum(axis=1), self.tensor_parallel)

    def _group_sequences(self, batch: Batch) -> tuple[Floats, Floats, Floats]:
        """Per rank, over its tensor-parallel group: mean query, mean context and number of sequences."""
        group = batch.rank // self.tensor_parallel
        groups = batch.ranks // self.tensor_parallel
        number = np.bincount(group, minlength=groups)
        query = np.bincount(group, weights=batch.query, minlength=groups) / np.maximum(number, 1)
        context = np.bincount(group, weights=batch.context, minlength=groups) / np.maximum(number, 1)
        wide = [np.repeat(column, self.tensor_parallel).astype(np.float64) for column in (query, context, number)]
        return wide[0], wide[1], wide[2]
