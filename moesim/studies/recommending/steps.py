"""Seconds of the steps that an estimate needs, of one replica's plan: priced by its clock, at a few sizes, kept."""

from __future__ import annotations

from typing import Final

import numpy as np

from moesim.serving import Hosted, Settings
from moesim.step import Batch, Phase
from moesim.studies.serving.build import ServeBuilt, kv_memory
from moesim.units import from_ps

GRAIN: Final = 128  # tokens of prompts: as measured kernels' tables are spaced


class Steps:
    """Steps of a replica in which every scheduler decodes for as many requests, at one context.

    context: tokens of a request, half way through its answer. One clock for all sizes: its tables are the plan's.
    """

    def __init__(self, built: ServeBuilt, context: int) -> None:
        self.built, self.context = built, context
        plan, ways = built.plan, built.plan.layout.tensor_parallel
        self._clock = Hosted(built.clock(), built.settings, plan.model.num_layers, ways)
        self._known: dict[tuple[int, int, int], float] = {}

    @property
    def data(self) -> int:
        """Schedulers."""
        return self.built.plan.layout.data_parallel

    def tokens(self, settings: Settings) -> int:
        """Of KV, that a scheduler has room for. Raises DoesNotFit."""
        held = kv_memory(self.built.plan, settings, self.built.beside)
        return held.blocks * held.block_size

    def seconds(self, decodes: float, prompts: int = 0, tokens: float = 0.0) -> float:
        """decodes: of each scheduler, between whole numbers a line; prompts: schedulers that compute `tokens` each."""
        grain = max(GRAIN * round(tokens / GRAIN), 1) if prompts else 0
        if decodes <= 1:
            return self._at(round(decodes) if prompts else 1, prompts, grain)
        low = 1 << int(np.log2(decodes))
        share = decodes / low - 1
        one = self._at(low, prompts, grain)
        return one if not share else one + share * (self._at(2 * low, prompts, grain) - one)

    def _at(self, decodes: int, prompts: int, tokens: int) -> float:
        key = (decodes, prompts, tokens)
        if key not in self._known:
            self._known[key] = float(from_ps(self._clock.ps(self._batch(*key))))
        return self._known[key]

    def _batch(self, decodes: int, prompts: int, tokens: int) -> Batch:
        """Rows of a scheduler stand on its ranks one after the other, as a Scheduler deals them."""
        ways, data = self.built.plan.layout.tensor_parallel, self.data
        count = data * decodes
        ranks = np.repeat(np.arange(data) * ways, decodes) + np.tile(np.arange(decodes) % ways, data)
        names = np.arange(count + prompts)
        whole = np.concatenate((np.zeros(count, np.int8), np.ones(prompts, np.int8)))
        return Batch.of(
            data * ways, np.concatenate((ranks, np.arange(prompts) * ways)), names,
            np.where(whole, tokens, 1), np.where(whole, 0, self.context),
            np.where(whole, Phase.PREFILL, Phase.DECODE),
        )  # fmt: skip
