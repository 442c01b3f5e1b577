"""What is drawn beside the JSON document of a run: small, plain, storable data, computed once from what was played."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.layout import MemoryLedger
from moesim.report.explain import words
from moesim.report.gantt import gantt
from moesim.report.link_pictures import heat, topology
from moesim.studies import Played, Result

MAX_MATRIX: Final = 128  # ranks; larger traffic matrices are summed by node


def pictures(result: Result, ranks: tuple[int, ...] = ()) -> dict[str, Any]:
    """The name, the words, and the data of each picture of one run; ranks: see gantt. Raises BadInput."""
    played = result.played
    return {
        "name": result.name,
        "words": words(result.to_json()),
        "gantt": gantt(played.graph, played.timeline, ranks),
        "experts": {"rows": played.expert_load.tolist()},
        "traffic": _traffic(played),
        "link_heat": heat(played),
        "topology": topology(played),
        "memory": _memory(played.memory),
    }


def _traffic(played: Played) -> dict[str, Any]:
    """Bytes from rank (or node) to rank (or node) over the whole step."""
    ranks = len(played.sent)
    if ranks <= MAX_MATRIX:
        return {"unit": "GPU", "bytes": played.sent.tolist()}
    return {"unit": "node", "bytes": by_node(played.sent, played.cluster.node_of[:ranks]).tolist()}


def by_node(sent: npt.NDArray[np.int64], node_of: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """int64[R, R], int32[R] -> int64[N, N]: sums over the ranks of each node."""
    nodes = int(node_of.max(initial=-1)) + 1
    total = np.zeros((nodes, nodes), dtype=np.int64)
    np.add.at(total, (node_of[:, None], node_of[None, :]), sent)
    return total


def _memory(ledger: MemoryLedger) -> dict[str, Any]:
    rows = [{"pool": row.pool, "item": row.item, "bytes": row.bytes, "knob": row.knob} for row in ledger.rows]
    return {"rows": rows, "capacity": dict(ledger.capacity)}
