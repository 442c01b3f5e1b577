"""Tables: a CostModel asked once for each shape of whole numbers; what it said is kept and given back, exact.

Nothing is interpolated. Where shapes come in rows (tokens of a GEMM, contexts of decoded tokens) a miss is answered
with its whole block; all misses of a question are priced in one vectorised call. What a shape costs does not depend on
what was asked before, or beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim.costs.communication import CommunicationCost
from moesim.costs.estimate import Estimate
from moesim.costs.model import CostModel
from moesim.costs.shapes import Rows, rows_of
from moesim.models import Attention, Linear

Ints = npt.NDArray[np.int64]
Ask = Callable[..., Estimate]  # a column of whole numbers for each axis of a shape -> its Estimate
BLOCK: Final = 64  # neighbours that are priced together
KEPT: Final = ("seconds", "outside", "flops", "bytes")


class Memo:
    """Answers about shapes of several whole numbers, the last of which come in blocks of `block`.

    bits: column n has to be below 2 ** bits[n], together at most 63; a question with others is asked, and not kept.
    """

    def __init__(self, bits: Sequence[int], block: int = 1) -> None:
        self._bits, self._block = tuple(bits), block
        self._place: dict[int, int] = {}
        self._kept = np.zeros((len(KEPT), 0, block))
        self._sample: Estimate | None = None

    def at(self, columns: Sequence[npt.ArrayLike], ask: Ask) -> Estimate:
        """columns int[...], broadcast together -> their Estimate [...]."""
        wide = [np.asarray(column, dtype=np.int64) for column in np.broadcast_arrays(*columns)]
        if any(int(column.max(initial=0)) >> bits for column, bits in zip(wide, self._bits, strict=True)):
            return never_alone(ask, wide)
        flat = [column.ravel() for column in wide]
        key = self._keys([*flat[:-1], flat[-1] // self._block])
        place = self._places(key)
        if self._sample is None or (place < 0).any():
            self._price(np.unique(key[place < 0]), ask)
            place = self._places(key)
        assert self._sample is not None
        cell = (place, flat[-1] % self._block)
        return _with(self._sample, self._kept[:, *cell].reshape(len(KEPT), *wide[0].shape))

    def _keys(self, columns: list[Ints]) -> Ints:
        key = columns[0]
        for column, bits in zip(columns[1:], self._bits[1:], strict=True):
            key = (key << bits) | column
        return key

    def _columns(self, key: Ints) -> list[Ints]:
        """What `_keys` put together."""
        columns: list[Ints] = []
        for bits in self._bits[:0:-1]:
            columns.append(key & ((1 << bits) - 1))
            key = key >> bits
        return [key, *reversed(columns)]

    def _places(self, key: Ints) -> Ints:
        return np.fromiter(map(self._place.get, key.tolist(), repeat(-1)), dtype=np.int64, count=len(key))

    def _price(self, keys: Ints, ask: Ask) -> None:
        """Whole blocks, in one call."""
        *others, blocks = self._columns(keys)
        last = blocks[:, None] * self._block + np.arange(self._block)
        found = never_alone(ask, [*(np.repeat(column, self._block) for column in others), last.ravel()])
        self._sample = found
        first = self._kept.shape[1]
        self._place.update(zip(keys.tolist(), range(first, first + len(keys)), strict=True))
        self._kept = np.concatenate((self._kept, _columns(found).reshape(len(KEPT), *last.shape)), axis=1)


def never_alone(ask: Ask, columns: Sequence[Ints]) -> Estimate:
    """Ask twice for a lone shape: along an axis of one, numpy adds up in another order, and the last bit may differ."""
    shape = columns[0].shape
    if columns[0].size != 1:
        return ask(*columns)
    found = ask(*(np.resize(column, 2) for column in columns))
    return _with(found, _columns(found)[:, :1].reshape(len(KEPT), *shape))


def _columns(found: Estimate) -> npt.NDArray[np.float64]:
    """float64[KEPT, ...]."""
    size = found.seconds.shape
    return np.stack([np.broadcast_to(np.asarray(getattr(found, name), dtype=np.float64), size) for name in KEPT])


def _with(found: Estimate, columns: npt.NDArray[np.float64]) -> Estimate:
    """The same answer about other shapes."""
    seconds, outside, flops, moved = columns
    return replace(found, seconds=seconds, outside=outside > 0, flops=flops, bytes=moved)


class Tables:
    """A CostModel that keeps what another one, `asked`, says."""

    def __init__(self, costs: CostModel) -> None:
        self.asked = costs
        self._memos: dict[Hashable, Memo] = {}
        self.name, self.device, self.kernels = costs.name, costs.device, costs.kernels
        self.widens: Mapping[str, float] = costs.widens
        self.backward: Mapping[str, float] = costs.backward
        self.families: Mapping[str, float] = costs.families
        self.communication: Mapping[str, CommunicationCost] = costs.communication

    def sustained(self) -> Tables:
        """See CostModel."""
        return Tables(self.asked.sustained())

    @property
    def clock_note(self) -> str:
        """See CostModel."""
        return self.asked.clock_note

    def gemm(self, m: npt.ArrayLike, n: int, k: int, dtype: str) -> Estimate:
        """See CostModel."""
        memo = self._memo(("gemm", n, k, dtype), (40,), BLOCK)
        return memo.at((m,), lambda m: self.asked.gemm(m, n, k, dtype))

    def expert_tile(self, dtype: str) -> int:
        """See CostModel."""
        return self.asked.expert_tile(dtype)

    def experts(
        self, rows: npt.ArrayLike, hidden: int, inter: int, dtype: str, matrices: int,
        choices: npt.ArrayLike | None = None,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        return self.experts_of(rows_of(rows, self.expert_tile(dtype)), hidden, inter, dtype, matrices, choices)

    def experts_of(
        self, rows: Rows, hidden: int, inter: int, dtype: str, matrices: int, choices: npt.ArrayLike | None = None
    ) -> Estimate:
        """See CostModel. Shapes with `choices` are not kept."""
        shape = (hidden, inter, dtype, matrices)
        columns = [*(column.astype(np.int64) for column in rows[:3]), (rows.padded - rows.total).astype(np.int64)]
        if choices is not None:
            passing = np.broadcast_to(np.asarray(choices, dtype=np.int64), columns[0].shape)
            return never_alone(lambda *c: self.asked.experts_of(_rows(*c[:4]), *shape, c[4]), [*columns, passing])
        memo = self._memo(("experts", *shape), (22, 9, 18, 14))
        return memo.at(columns, lambda *c: self.asked.experts_of(_rows(*c), *shape))

    def attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel; of whole numbers. Decoded tokens are priced in blocks of contexts."""
        memo = self._memo(("attention", phase, shape, heads, dtype), (14, 22, 25), BLOCK if phase == "decode" else 1)
        return memo.at(
            (requests, query, context), lambda n, q, c: self.asked.attention(phase, q, c, n, shape, heads, dtype)
        )

    def full_attention(
        self, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, heads: int, dtype: str
    ) -> Estimate:
        """See CostModel; kept as attention is."""
        memo, rest = self._memo(("full attention", shape, heads, dtype), (14, 22)), (shape, heads, dtype)
        return memo.at((requests, query), lambda n, q: self.asked.full_attention(q, n, *rest))

    def latent_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str, weights: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel; kept as attention is."""
        key = ("latent attention", phase, shape, heads, dtype, weights)
        rest = (shape, heads, dtype, weights)
        memo = self._memo(key, (14, 22, 25), BLOCK if phase == "decode" else 1)
        return memo.at((requests, query, context), lambda n, q, c: self.asked.latent_attention(phase, q, c, n, *rest))

    def sparse_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        hidden: int, ways: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel; kept as attention is."""
        key = ("sparse attention", phase, shape, hidden, ways, dtype)
        memo = self._memo(key, (14, 22, 25), BLOCK if phase == "decode" else 1)
        rest = (shape, hidden, ways, dtype)
        return memo.at((requests, query, context), lambda n, q, c: self.asked.sparse_attention(phase, q, c, n, *rest))

    def recurrence(
        self, phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Linear, ways: int
    ) -> tuple[Estimate, ...]:
        """See CostModel; as few as the different lengths of a batch, so that none is kept."""
        return self.asked.recurrence(phase, query, requests, shape, ways)

    def hyper(self, tokens: npt.ArrayLike, hidden: int, copies: int) -> tuple[Estimate, ...]:
        """See CostModel; of few different numbers of tokens, so that none is kept."""
        return self.asked.hyper(tokens, hidden, copies)

    def elementwise(self, moved: npt.ArrayLike) -> Estimate:
        """See CostModel; as cheap as a table."""
        return self.asked.elementwise(moved)

    def host_seconds(self, phase: str, layers: int) -> float:
        """See CostModel."""
        return self.asked.host_seconds(phase, layers)

    def _memo(self, name: Hashable, bits: tuple[int, ...], block: int = 1) -> Memo:
        if name not in self._memos:
            self._memos[name] = Memo(bits, block)
        return self._memos[name]


def _rows(total: Ints, active: Ints, most: Ints, padding: Ints) -> Rows:
    return Rows(*(np.asarray(column, dtype=np.float64) for column in (total, active, most, total + padding)))
