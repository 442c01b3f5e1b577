"""What one step works on: rows of new tokens on ranks. Everything per token is derived."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Ints = npt.NDArray[np.int64]

KEPT = frozenset(("memo", "routed", "tokens_of_rank", "head_rows"))  # of a batch, whatever comes before its tokens


class Phase(IntEnum):
    """What a row is: a decoded token, a chunk of a prompt (or a training sequence), or padding."""

    DECODE = 0
    PREFILL = 1
    DUMMY = 2


@dataclass(frozen=True)
class Batch:
    """A row per sequence that brings new tokens, of any phases mixed: int64[S] rank (ascending), request, query (new
    tokens), context (tokens before them); phase int8[S]; emits bool[S]: its last token goes through the head.

    A chunk of a prompt that does not end it emits nothing. Dummy rows are what an idle rank or a padded graph computes
    beside the others: its dense parts run over them; they attend to nothing, are sent to no expert and emit nothing.
    training: rows are whole sequences, all of whose tokens go through the head, and a backward pass follows. memo: what
    others worked out of everything but contexts, for the batches that come `onward`.
    """

    ranks: int
    rank: Ints
    request: Ints
    query: Ints
    context: Ints
    phase: npt.NDArray[np.int8]
    emits: npt.NDArray[np.bool_]
    training: bool = False
    memo: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def of(cls, ranks: int, rank: npt.ArrayLike, request: npt.ArrayLike, query: npt.ArrayLike, context: npt.ArrayLike,
           phase: npt.ArrayLike, emits: npt.ArrayLike = True) -> Batch:  # fmt: skip
        """Rows in any order; scalars stand for all. Raises BadInput on ranks or sizes that cannot be."""
        sizes = [np.size(column) for column in (rank, request, query, context, phase, emits) if np.ndim(column)]
        rows = 0 if 0 in sizes else max(sizes, default=1)
        who, name, new, before = (_column(rows, one, np.int64) for one in (rank, request, query, context))
        kind, last = _column(rows, phase, np.int8), _column(rows, emits, np.bool_)
        if (who[1:] < who[:-1]).any():
            order = np.argsort(who, kind="stable")
            who, name, new, before = who[order], name[order], new[order], before[order]
            kind, last = kind[order], last[order]
        if len(who) and (who[0] < 0 or who[-1] >= ranks):
            raise BadInput(f"a row is on rank {who[-1] if who[-1] >= ranks else who[0]} of {ranks}", where="batch")
        if (new < 1).any() or (before < 0).any() or ((kind == Phase.DECODE) & (new != 1)).any():
            raise BadInput("a row has one new token or more, a decoded one just one, after 0 or more", where="batch")
        return cls(ranks, who, name, new, before, kind, last & (kind != Phase.DUMMY))

    @cached_property
    def routed(self) -> npt.NDArray[np.bool_]:
        """bool[S]: rows whose tokens go to experts: all but dummies."""
        return np.asarray(self.phase != Phase.DUMMY)

    @property
    def tokens(self) -> int:
        """New tokens of the whole batch, dummies not among them."""
        return int(self.query[self.routed].sum())

    @cached_property
    def tokens_of_rank(self) -> Ints:
        """int64[ranks]: new tokens that each rank computes, dummies among them."""
        return np.bincount(self.rank, weights=self.query, minlength=self.ranks).astype(np.int64)

    @cached_property
    def head_rows(self) -> Ints:
        """int64[ranks]: tokens that go through the head."""
        if self.training:
            return self.tokens_of_rank
        return np.bincount(self.rank[self.emits], minlength=self.ranks)

    @cached_property
    def token_rank(self) -> npt.NDArray[np.int32]:
        """int32[tokens]: the rank each token starts from."""
        return np.repeat(self.rank[self.routed], self.query[self.routed]).astype(np.int32)

    @cached_property
    def token_request(self) -> Ints:
        """int64[tokens]: the request each token belongs to."""
        return np.repeat(self.request[self.routed], self.query[self.routed])

    @cached_property
    def token_position(self) -> Ints:
        """int64[tokens]: the position of each token in its request."""
        query, context = self.query[self.routed], self.context[self.routed]
        return np.arange(self.tokens) - np.repeat(np.cumsum(query) - query - context, query)

    def padded(self, tokens: int) -> Batch:
        """Every rank computes `tokens` at least: an idle one gets a dummy row, as it joins every all-to-all."""
        lacking = np.maximum(tokens - self.tokens_of_rank, 0)
        idle = np.flatnonzero(lacking)
        if not len(idle):
            return self
        none = np.zeros(len(idle), dtype=np.int64)
        dummies = {"rank": idle, "request": none, "query": lacking[idle], "context": none}
        columns = {name: np.concatenate((getattr(self, name), rows)) for name, rows in dummies.items()}
        phase = np.concatenate((self.phase, np.full(len(idle), Phase.DUMMY, dtype=np.int8)))
        emits = np.concatenate((self.emits, none.astype(np.bool_)))
        rows = Batch.of(self.ranks, **columns, phase=phase, emits=emits)
        return replace(rows, training=self.training)

    def onward(self, more: npt.NDArray[Any]) -> Batch:
        """The same rows with `more` [S] tokens before them: what does not depend on those is kept."""
        return self._at(self.context + more)

    def following(self, last: Batch | None) -> Batch:
        """The same batch, with what is kept of `last` where the two differ in contexts alone."""
        if last is None or last.memo is self.memo or not self._rows_of(last):
            return self
        return last._at(self.context)

    def _rows_of(self, other: Batch) -> bool:
        """Is all but contexts the same?"""
        if (self.ranks, self.training) != (other.ranks, other.training):
            return False
        columns = ("rank", "request", "query", "phase", "emits")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in columns)

    def _at(self, context: Ints) -> Batch:
        found = replace(self, context=context)
        for name in KEPT.intersection(self.__dict__):
            found.__dict__[name] = self.__dict__[name]
        return found

    def for_training(self) -> Batch:
        """The same rows with a backward pass."""
        return replace(self, training=True)

    def split(self, parts: int) -> tuple[Batch, ...]:
        """Parts that are near-equal in tokens, the same way on every rank; one part gives the batch itself.

        A row that lies across a cut is divided; what was its end still emits.
        """
        if parts == 1:
            return (self,)
        first, size = self._begin, self.tokens_of_rank[self.rank]
        cuts = [-(-size * part // parts) for part in range(parts + 1)]
        return tuple(self._between(first, low, high) for low, high in pairwise(cuts))

    @property
    def _begin(self) -> Ints:
        """int64[S]: tokens of its rank before each row."""
        before = np.cumsum(self.query) - self.query
        return before - np.concatenate(([0], np.cumsum(self.tokens_of_rank)))[self.rank]

    def _between(self, first: Ints, low: Ints, high: Ints) -> Batch:
        """The tokens low..high - 1 of each row's rank; rows begin at token `first` of it."""
        start, stop = np.maximum(first, low), np.minimum(first + self.query, high)
        keep = stop > start
        part = replace(
            self, query=stop - start, context=self.context + np.where(self.routed, start - first, 0),
            emits=self.emits & (stop == first + self.query),
        )  # fmt: skip
        return part._only(keep)

    def on_ranks(self, ranks: npt.NDArray[np.int32]) -> Batch:
        """The rows of consecutive `ranks`, renumbered from 0."""
        part = self._only((self.rank >= ranks[0]) & (self.rank <= ranks[-1]))
        return replace(part, ranks=len(ranks), rank=part.rank - int(ranks[0]))

    @property
    def decodes(self) -> Batch:
        """The decoded rows alone."""
        return self._only(np.asarray(self.phase == Phase.DECODE))

    def _only(self, keep: npt.NDArray[np.bool_]) -> Batch:
        columns = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return replace(self, **{name: column[keep] for name, column in columns.items() if np.ndim(column)})


@dataclass(frozen=True)
class Alike:
    """Rows that are alike, int64[...] each: their tensor-parallel group, query and context, how many they are, and how
    many of their phase the group has.
    """

    group: Ints
    query: Ints
    context: Ints
    count: Ints
    number: Ints


def alike(batch: Batch, phase: Phase, ways: int) -> Alike:
    """The rows of a phase, counted by what they are; groups are `ways` consecutive ranks."""
    chosen = np.flatnonzero(batch.phase == phase)
    columns = np.stack((batch.rank[chosen] // ways, batch.query[chosen], batch.context[chosen]))
    number = np.bincount(columns[0], minlength=batch.ranks // ways)
    (group, query, context), count = _counted(columns)
    return Alike(group, query, context, count, number[group])


def windowed(kinds: Alike, window: int) -> tuple[Ints, Ints, Ints]:
    """Rows whose tokens look back at `window` tokens, themselves included -> query, context and number of the rows
    without a window that see about as much: blocks of at most `window` tokens, each after the window before it.

    A block of w after w sees 1.5 w pairs a token where a window sees w: what kernels compute whose tiles are as large.
    """
    blocks = -(-kinds.query // window)
    context = np.where(blocks > 1, window, np.minimum(kinds.context, window - 1))
    return -(-kinds.query // blocks), context, kinds.number * blocks


def _column(rows: int, values: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A copy of the values, or one for all rows."""
    found = np.empty(rows, dtype)
    found[:] = values
    return found


def _counted(columns: Ints) -> tuple[Ints, Ints]:
    """int64[3, S] -> (the different ones in order, how many there are of each)."""
    _, query, context = (int(column.max(initial=0)) + 1 for column in columns)
    if (int(columns[0].max(initial=0)) + 1) * query * context >= 2**63:
        return np.unique(columns, axis=1, return_counts=True)
    packed, count = np.unique((columns[0] * query + columns[1]) * context + columns[2], return_counts=True)
    rest, last = np.divmod(packed, context)
    return np.stack((*np.divmod(rest, query), last)), count


def uniform_batch(
    phase: Literal["decode", "prefill", "train"], ranks: int, tokens_per_rank: int, context: int, *,
    first_request: int = 0,
) -> Batch:  # fmt: skip
    """Equal sequences everywhere: decode takes one token of `context` earlier ones, the others whole sequences.

    Requests are numbered from `first_request` on. Raises BadInput where sequences do not fill the tokens evenly.
    """
    query, earlier = (1, context) if phase == "decode" else (context, 0)
    if query < 1 or tokens_per_rank < 1 or tokens_per_rank % query:
        nearest = max(tokens_per_rank // max(query, 1), 1) * max(query, 1)
        raise BadInput(
            f"{tokens_per_rank} tokens a GPU are not whole sequences of {query}",
            where="batch.tokens_per_gpu",
            way_out=f"{nearest}",
        )
    sequences = ranks * (tokens_per_rank // query)
    rows = Batch.of(
        ranks, np.repeat(np.arange(ranks), sequences // ranks), first_request + np.arange(sequences), query, earlier,
        Phase.DECODE if phase == "decode" else Phase.PREFILL,
    )  # fmt: skip
    return replace(rows, training=phase == "train")
