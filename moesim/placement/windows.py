"""Windows: what a placement is planned for, or judged on. Expert counts of stretches of tokens, and the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.placement.flow import count_flow
from moesim.routing import PHASES, RoutingTrace
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import NO_EXPERT

Counts = npt.NDArray[np.int64]
MOST = 2.0**62  # choices in all: sums are int64
Tokens = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Windows:
    """counts int64[W, layers, experts]: choices of each expert in each window.

    tokens uint8 or uint16[layers, T, k] (NO_EXPERT: none), or None where only counts are known; window w holds the
    tokens edges[w] .. edges[w + 1] - 1 (edges int64[W + 1]). Tokens are a view and never copied. group int64[W]: which
    recording each window is of, None where there is one; windows are never mixed across recordings. Raises BadInput.
    """

    name: str
    counts: Counts
    tokens: Tokens | None = field(default=None, compare=False, repr=False)
    edges: Counts | None = None
    group: Counts | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.counts.ndim != 3 or not self.counts.size or self.counts.dtype.kind not in "iu":
            raise BadInput(f"counts {self.counts.dtype}{list(self.counts.shape)} are not integers [windows, layers, E]")
        if (self.counts < 0).any():
            window, layer, expert = np.argwhere(self.counts < 0)[0]
            raise BadInput(f"{self.name}, window {window}, layer {layer}: expert {expert} has a negative count")
        if (most := float(self.counts.max())) * self.counts.size >= MOST:
            raise BadInput(
                f"{self.name}: a count of {most:.3g} is more than sums can hold", way_out="fewer, or divided"
            )

    @staticmethod
    def of_tokens(name: str, tokens: Tokens, experts: int, window: int) -> Windows:
        """[layers, T, k] -> near-equal windows of about `window` tokens, at least one. Raises BadInput."""
        layers, length = tokens.shape[:2]
        if window < 1 or not length:
            raise BadInput(f"{length} tokens in windows of {window}", where=name)
        edges = np.linspace(0, length, max(round(length / window), 1) + 1).astype(np.int64)
        counts = np.stack([_count(tokens[layer], edges, experts) for layer in range(layers)], axis=1)
        return Windows(name, counts, tokens, edges)

    @staticmethod
    def of_trace(trace: RoutingTrace, window: int, phase: str | None = None) -> Windows:
        """The tokens of a trace in their order, of all phases or one. Raises BadInput where there are none."""
        if phase is not None:
            trace = trace.take(trace.phase == PHASES.index(phase))
        return Windows.of_tokens(phase or "trace", trace.expert.transpose(1, 0, 2), trace.header.num_experts, window)

    @staticmethod
    def of_loads(record: LoadRecord) -> Windows:
        """Counts that a recorder kept: a window for each step."""
        return Windows("loads", record.counts)

    @staticmethod
    def joined(name: str, parts: Sequence[Windows], group: Counts) -> Windows:
        """Windows with tokens, one after the other; group int64[all windows]."""
        tokens = np.concatenate([part.tokens for part in parts if part.tokens is not None], axis=1)
        steps = np.concatenate([np.diff(part.edges) for part in parts if part.edges is not None])
        edges = np.concatenate([[0], np.cumsum(steps)])
        return Windows(name, np.concatenate([part.counts for part in parts]), tokens, edges, group)

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.counts)

    @property
    def load(self) -> Counts:
        """int64[layers, experts]: all windows together."""
        total: Counts = self.counts.sum(axis=0)
        return total

    @cached_property
    def flow(self) -> npt.NDArray[np.float64]:
        """float64[layers - 1, experts, experts]: moves of tokens between experts. Raises BadInput without tokens."""
        if self.tokens is None:
            raise BadInput("moves between layers need tokens", where=self.name, way_out="a trace, not counts")
        return count_flow(self.tokens, self.counts.shape[2])

    def merged(self) -> Windows:
        """All windows as one: what a planner that looks at totals sees."""
        edges = None if self.edges is None else self.edges[[0, -1]]
        return Windows(self.name, self.counts.sum(axis=0, keepdims=True), self.tokens, edges)

    def only(self, first: int, stop: int, name: str) -> Windows:
        """Windows first .. stop - 1."""
        if self.tokens is None or self.edges is None:
            return Windows(name, self.counts[first:stop], group=self._group(first, stop))
        edges, group = self.edges[first : stop + 1], self._group(first, stop)
        return Windows(name, self.counts[first:stop], self.tokens[:, edges[0] : edges[-1]], edges - edges[0], group)

    def of_layers(self, layers: Counts) -> Windows:
        """Some layers of all windows."""
        tokens = None if self.tokens is None else self.tokens[layers]
        return Windows(self.name, self.counts[:, layers], tokens, self.edges, self.group)

    def _group(self, first: int, stop: int) -> Counts | None:
        return None if self.group is None else self.group[first:stop]

    def hold_out(self, share: float) -> tuple[Windows, Windows]:
        """(earlier windows, the last `share` of them); both keep at least one. Raises BadInput."""
        if not 0 < share < 1 or self.num_windows < 2:
            raise BadInput(
                f"{share:g} of {self.num_windows} window(s) cannot be held out",
                where=self.name,
                way_out="holdout 0, or smaller windows and a share between 0 and 1",
            )
        cut = min(max(round(self.num_windows * (1 - share)), 1), self.num_windows - 1)
        return self.only(0, cut, self.name), self.only(cut, self.num_windows, "held out")


def _count(tokens: Tokens, edges: Counts, experts: int) -> Counts:
    """[T, k] of one layer -> int64[W, experts]."""
    highest = int(tokens[tokens != NO_EXPERT].max(initial=0))
    if highest >= experts:
        raise BadInput(f"expert {highest} is not below {experts}")
    result = np.empty((len(edges) - 1, experts + 1), dtype=np.int64)
    for window, (first, last) in enumerate(pairwise(edges)):
        chosen = np.minimum(tokens[first:last].astype(np.int64), experts)
        result[window] = np.bincount(chosen.ravel(), minlength=experts + 1)
    return result[:, :experts]
