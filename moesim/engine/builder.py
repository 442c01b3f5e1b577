"""GraphBuilder: tasks are added in program order; `build` seals them into a TaskGraph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moesim.engine.graph import Join, TaskGraph
from moesim.engine.integrity import check_integrity
from moesim.errors import BadInput
from moesim.network import Coflow

After = Sequence[tuple[int, Join]]


class GraphBuilder:
    """Collects the columns of a TaskGraph. Names of classes and streams are numbered as they first appear."""

    def __init__(self) -> None:
        self._name: list[str] = []
        self._labels: list[tuple[int, int, int, int, int]] = []  # class, stream, layer, micro-batch, round
        self._ranks: list[npt.NDArray[np.int32]] = []
        self._seconds: list[npt.NDArray[np.float64]] = []
        self._seen: tuple[npt.ArrayLike, npt.NDArray[np.int32]] | None = None
        self._after: list[After] = []
        self._coflow: list[int] = []
        self._coflows: list[Coflow] = []
        self._classes: dict[str, int] = {}
        self._streams: dict[str, int] = {}

    def add(
        self,
        name: str,
        task_class: str,
        stream: str,
        ranks: npt.ArrayLike,
        seconds: npt.ArrayLike | None = None,
        coflow: Coflow | None = None,
        after: After = (),
        layer: int = -1,
        micro_batch: int = 0,
        round: int = 0,
    ) -> int:
        """ranks int[R]; seconds [R] or one number for a compute task, or a coflow of R lanes -> the task's number.

        `after` holds (earlier task, Join) pairs. Raises BadInput naming the task.
        """
        where = f"{name} (task {len(self._name)}, layer {layer})"
        lanes = self._lanes(ranks, where)
        self._seconds.append(_seconds(seconds, coflow, len(lanes), where))
        self._check_after(after, where)
        self._ranks.append(lanes)
        self._after.append(tuple(after))
        self._name.append(name)
        class_, stream_ = _number(self._classes, task_class), _number(self._streams, stream)
        self._labels.append((class_, stream_, layer, micro_batch, round))
        self._coflow.append(-1 if coflow is None else len(self._coflows))
        if coflow is not None:
            self._coflows.append(coflow)
        return len(self._name) - 1

    def _lanes(self, ranks: npt.ArrayLike, where: str) -> npt.NDArray[np.int32]:
        """Most tasks of a step are on the same array of ranks, which is looked at once."""
        if self._seen is None or self._seen[0] is not ranks:
            self._seen = (ranks, _ranks(ranks, where))
        return self._seen[1]

    def _check_after(self, after: After, where: str) -> None:
        for earlier, _ in after:
            if not 0 <= earlier < len(self._name):
                raise BadInput(f"waits for task {earlier}, which was not added before it", where=where)

    def build(self) -> TaskGraph:
        """The sealed graph. Raises BadInput where a join names a rank that takes no part in the earlier task."""
        edges = [(int(earlier), int(join)) for after in self._after for earlier, join in after]
        class_, stream, layer, micro_batch, round_ = np.array(self._labels, dtype=np.int64).reshape(-1, 5).T
        graph = TaskGraph(
            name=tuple(self._name),
            task_class=class_.astype(np.int16),
            classes=tuple(self._classes),
            stream=stream.astype(np.int8),
            streams=tuple(self._streams),
            layer=layer.astype(np.int32),
            micro_batch=micro_batch.astype(np.int32),
            round=round_.astype(np.int32),
            lane_ptr=_offsets([len(ranks) for ranks in self._ranks]),
            lane_rank=np.concatenate([*self._ranks, np.zeros(0, np.int32)]),
            lane_seconds=np.concatenate([*self._seconds, np.zeros(0)]),
            edge_ptr=_offsets([len(after) for after in self._after]),
            edge_from=np.array([earlier for earlier, _ in edges], dtype=np.int32),
            edge_join=np.array([join for _, join in edges], dtype=np.int8),
            coflow=np.array(self._coflow, dtype=np.int32),
            coflows=tuple(self._coflows),
        )
        check_integrity(graph)
        return graph


def _ranks(ranks: npt.ArrayLike, where: str) -> npt.NDArray[np.int32]:
    lanes = np.atleast_1d(np.asarray(ranks, dtype=np.int32))
    if lanes.ndim != 1 or not len(lanes) or lanes.min() < 0 or len(np.unique(lanes)) < len(lanes):
        raise BadInput("its ranks must be one or more distinct numbers from 0", where=where)
    return lanes


def _seconds(
    seconds: npt.ArrayLike | None, coflow: Coflow | None, lanes: int, where: str
) -> npt.NDArray[np.float64]:  # fmt: skip
    """float64[lanes]."""
    if (seconds is None) == (coflow is None):
        raise BadInput("it needs either seconds or a coflow", where=where)
    if coflow is not None:
        if coflow.lanes != lanes:
            raise BadInput(f"its coflow has {coflow.lanes} lanes, its group {lanes} ranks", where=where)
        return np.zeros(lanes)
    values = np.broadcast_to(np.asarray(seconds, dtype=np.float64), lanes)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise BadInput("its seconds must be finite and not negative", where=where)
    return values


def _number(names: dict[str, int], name: str) -> int:
    return names.setdefault(name, len(names))


def _offsets(counts: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(np.array(counts, dtype=np.int64))))
