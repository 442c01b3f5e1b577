"""TransferLog: collects what each link carried, coflow by coflow."""

from __future__ import annotations

import numpy as np

from moesim.engine.timeline import Transfers
from moesim.network.port_times import Spans


class TransferLog:
    """Spans of links, in the order in which coflows are added."""

    def __init__(self) -> None:
        self._task: list[int] = []
        self._spans: list[Spans] = []

    def add(self, task: int, spans: Spans) -> None:
        """What a coflow's links carried."""
        self._task.append(task)
        self._spans.append(spans)

    def transfers(self) -> Transfers:
        """All rows."""
        if not self._spans:
            return Transfers.none()
        counts = [len(spans.link) for spans in self._spans]
        columns = [np.concatenate(parts) for parts in zip(*self._spans, strict=True)]
        return Transfers(np.repeat(np.array(self._task, dtype=np.int32), counts), *columns)
