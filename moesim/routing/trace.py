"""RoutingTrace: which experts every token took in every layer. It is the input that everything else is judged by.

One row per token: `expert[layer, choice]` in the order of the choices' weights, heaviest first, and who the token was:
request, position, phase, domain, step and source rank. Laws: every id is below `num_experts` or NO_EXPERT; a token
meets an expert at most once in a layer; (request, position) names a token; weights are finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.routing.shape import NO_EXPERT, check_sizes, routing_digest

PHASES: Final = ("prefill", "decode", "train")
REQUIRED: Final = {"request": np.int32, "position": np.int32, "phase": np.uint8, "domain": np.uint8}
REQUIRED_PLACE: Final = {"step": np.int32, "source_rank": np.int32}
ROW_COLUMNS: Final[dict[str, Any]] = {**REQUIRED, **REQUIRED_PLACE}
PREFIX_BLOCK: Final = 1024  # tokens between two rows of the in-memory prefix counts


@dataclass(frozen=True)
class TraceHeader:
    """What a trace is: the model's routing shape, where it came from, and the evidence that it is what it says."""

    model: str
    moe_layers: int
    num_experts: int
    top_k: int
    origin: str
    domains: tuple[str, ...] = ("all",)
    basis: str = "recorded"
    licence: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of name and routing shape; a trace is replayed on a model with the same digest only."""
        return routing_digest(self.model, self.moe_layers, self.num_experts, self.top_k)


@dataclass(frozen=True)
class RoutingTrace:
    """expert uint16[N, layers, k]; request, position, step, source_rank int32[N]; phase, domain uint8[N].

    Optional: weight float16[N, layers, k], token_id int32[N], logits float16[N, layers, experts], rounds uint8[N,
    layers, k]. Raises BadInput that names step, layer and token where a law of this file is broken.
    """

    header: TraceHeader
    expert: npt.NDArray[np.uint16]
    request: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    phase: npt.NDArray[np.uint8]
    domain: npt.NDArray[np.uint8]
    step: npt.NDArray[np.int32]
    source_rank: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float16] | None = None
    token_id: npt.NDArray[np.int32] | None = None
    logits: npt.NDArray[np.float16] | None = None
    rounds: npt.NDArray[np.uint8] | None = None
    where: str = field(default="trace", compare=False)

    def __post_init__(self) -> None:
        header = self.header
        check_sizes(header.moe_layers, header.num_experts, header.top_k, self.where)
        self._check_shapes()
        self._check_rows()
        self._check_experts()
        for name in ("weight", "logits"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise self.error(f"a {name} is not a finite number", *np.argwhere(~np.isfinite(values))[0][:2])

    @property
    def tokens(self) -> int:
        """Rows of the trace."""
        return len(self.expert)

    def error(self, what: str, token: int, layer: int | None = None) -> BadInput:
        """A BadInput that names the step, the layer and the token."""
        step = int(self.step[token]) if token < len(self.step) else "?"
        place = f"step {step}, " + (f"layer {layer}, " if layer is not None else "") + f"token {token}"
        return BadInput(f"{place}: {what}", where=self.where)

    def _check_shapes(self) -> None:
        header, tokens = self.header, len(self.expert)
        cell = (tokens, header.moe_layers, header.top_k)
        if not tokens:
            raise BadInput("has no tokens", where=self.where)
        if self.expert.shape != cell:
            raise BadInput(f"experts have shape {self.expert.shape}, the header says {cell}", where=self.where)
        shapes = {"expert": cell, "weight": cell, "rounds": cell, "logits": (*cell[:2], header.num_experts)}
        for column in fields(self):
            values = getattr(self, column.name)
            if isinstance(values, np.ndarray) and values.shape != shapes.get(column.name, values.shape[:1]):
                raise BadInput(f"{column.name} has shape {values.shape}, experts {cell}", where=self.where)
            if isinstance(values, np.ndarray) and len(values) != tokens:
                raise BadInput(f"{column.name} has {len(values)} rows, experts {tokens}", where=self.where)

    def _check_rows(self) -> None:
        limits = {"phase": len(PHASES), "domain": len(self.header.domains)}
        for name in ROW_COLUMNS:
            values, limit = getattr(self, name), limits.get(name, 2**31)
            if values.min() < 0 or values.max() >= limit:
                token = int(np.argmax((values < 0) | (values.astype(np.int64) >= limit)))
                raise self.error(f"{name} {values[token]} is not in 0..{limit - 1}", token)

    def _check_experts(self) -> None:
        for layer in range(self.header.moe_layers):  # one at a time: a mask of all would be half as large as the trace
            chosen = self.expert[:, layer]
            out = (chosen >= self.header.num_experts) & (chosen != NO_EXPERT)
            if out.any():
                token, choice = np.argwhere(out)[0]
                what = f"expert {chosen[token, choice]} is not below {self.header.num_experts}"
                raise self.error(what, int(token), layer)
        for later in range(1, self.header.top_k):
            for earlier in range(later):
                self._check_pair(earlier, later)

    def _check_pair(self, earlier: int, later: int) -> None:
        """Two choices of a token differ; comparing pairs of columns beats sorting for k up to about 10."""
        same = self.expert[:, :, earlier] == self.expert[:, :, later]
        if same.any():
            same &= self.expert[:, :, later] != NO_EXPERT
            if self.rounds is not None:
                same &= self.rounds[:, :, earlier] == self.rounds[:, :, later]
            if same.any():
                token, layer = np.argwhere(same)[0]
                expert = self.expert[token, layer, later]
                raise self.error(f"expert {expert} is chosen twice by one token", int(token), int(layer))

    @cached_property
    def by_request(self) -> RequestIndex:
        """The tokens of each request in the order of their positions."""
        return RequestIndex.of(self)

    def window(self, start: int, stop: int) -> RoutingTrace:
        """The rows start..stop-1 as a trace. Raises BadInput where there are none."""
        return self.take(np.s_[max(start, 0) : stop])

    def take(self, rows: Any) -> RoutingTrace:
        """Some rows (a slice, a mask or indices) as a trace. Raises BadInput where there are none."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: a[rows] for n, a in arrays.items() if isinstance(a, np.ndarray)})

    @cached_property
    def prefix_counts(self) -> npt.NDArray[np.int64]:
        """int64[blocks + 1, layers, experts]: choices of each expert before each block of PREFIX_BLOCK tokens."""
        starts = range(0, self.tokens, PREFIX_BLOCK)
        blocks = [count_experts(self.expert[s : s + PREFIX_BLOCK], self.header.num_experts) for s in starts]
        return np.concatenate([np.zeros_like(blocks[:1]), np.cumsum(blocks, axis=0)])

    def counts(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """int64[layers, experts]: choices of each expert by the tokens start..stop-1; cost: two partial blocks."""
        stop = self.tokens if stop is None else min(stop, self.tokens)
        return self._before(stop) - self._before(max(start, 0))

    def _before(self, token: int) -> npt.NDArray[np.int64]:
        block = token // PREFIX_BLOCK
        rest = self.expert[block * PREFIX_BLOCK : token]
        counts: npt.NDArray[np.int64] = self.prefix_counts[block]
        return counts + count_experts(rest, self.header.num_experts) if len(rest) else counts


@dataclass(frozen=True)
class RequestIndex:
    """order int64[N]: rows sorted by (request, position); request int32[R] ids; start, length int64[R] in `order`."""

    order: npt.NDArray[np.int64]
    request: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    @staticmethod
    def of(trace: RoutingTrace) -> RequestIndex:
        """Raises BadInput where two rows are the same position of one request."""
        order = np.lexsort((trace.position, trace.request))
        request, position = trace.request[order], trace.position[order]
        same = (request[1:] == request[:-1]) & (position[1:] == position[:-1])
        if same.any():
            row = int(order[int(np.argmax(same)) + 1])
            raise trace.error(f"request {trace.request[row]} has position {trace.position[row]} twice", row)
        ids, start, length = np.unique(request, return_index=True, return_counts=True)
        return RequestIndex(order, ids, start.astype(np.int64), length.astype(np.int64))


def count_experts(expert: npt.NDArray[np.uint16], num_experts: int) -> npt.NDArray[np.int64]:
    """uint16[N, layers, k] -> int64[layers, num_experts]; NO_EXPERT is not counted."""
    layers = expert.shape[1]
    size = num_experts + 1
    cell = np.minimum(expert, num_experts).astype(np.int32)
    cell += (np.arange(layers, dtype=np.int32) * size)[:, None]
    counts = np.bincount(cell.reshape(-1), minlength=layers * size)
    return counts.reshape(layers, size)[:, :num_experts].astype(np.int64)


def make_trace(
    header: TraceHeader,
    expert: npt.ArrayLike,
    *,
    request: npt.ArrayLike | None = None,
    position: npt.ArrayLike | None = None,
    phase: npt.ArrayLike = 0,
    domain: npt.ArrayLike = 0,
    step: npt.ArrayLike = 0,
    source_rank: npt.ArrayLike = 0,
    weight: npt.ArrayLike | None = None,
    token_id: npt.ArrayLike | None = None,
    logits: npt.ArrayLike | None = None,
    where: str = "trace",
) -> RoutingTrace:
    """expert [N, layers, k] integers, -1 or NO_EXPERT for none -> RoutingTrace; the other columns [N] or one value.

    Without request and position all tokens are one request in order. Raises BadInput, also for ids that do not fit.
    """
    ids = np.asarray(expert)
    if ids.dtype.kind not in "iu" or ids.ndim != 3:
        raise BadInput(f"experts are {ids.dtype}{list(ids.shape)}, not integers [tokens, layers, k]", where=where)
    tokens = len(ids)
    row = {"request": 0 if request is None else request, "phase": phase, "domain": domain, "step": step}
    row |= {"position": np.arange(tokens) if position is None else position, "source_rank": source_rank}
    if token_id is not None:
        row["token_id"] = token_id
    columns = {n: _column(n, v, ROW_COLUMNS.get(n, np.int32), tokens, where) for n, v in row.items()}
    floats = {"weight": weight, "logits": logits}
    columns |= {n: np.asarray(v, dtype=np.float16) for n, v in floats.items() if v is not None}
    return RoutingTrace(header, _narrow(ids, header.num_experts, where), **columns, where=where)


def _narrow(ids: npt.NDArray[Any], num_experts: int, where: str) -> npt.NDArray[np.uint16]:
    bad = ((ids < -1) | (ids >= num_experts)) & (ids != NO_EXPERT)
    if bad.any():
        token, layer, choice = np.argwhere(bad)[0]
        what = f"layer {layer}, token {token}: expert {ids[token, layer, choice]} is not below {num_experts}"
        raise BadInput(what, where=where)
    return np.where(ids == -1, NO_EXPERT, ids).astype(np.uint16)


def _column(name: str, values: npt.ArrayLike, dtype: Any, tokens: int, where: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "iu" or (array.size and (array.min() < limits.min or array.max() > limits.max)):
        raise BadInput(f"{name} is no column of {np.dtype(dtype)}", where=where)
    if array.ndim and array.shape != (tokens,):
        raise BadInput(f"{name} has shape {array.shape}, experts have {tokens} rows", where=where)
    return np.broadcast_to(array, (tokens,)).astype(dtype)
