"""Pictures of links: their load over time, and the topology with the load of each cable."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.studies import Played

MAX_ROWS: Final = 32  # links of the heatmap, the hottest
BINS: Final = 120
MAX_CABLES: Final = 4000  # more are a black square
_GPU: Final = re.compile(r"gpu\d+")


def heat(played: Played) -> dict[str, Any]:
    """Utilisation of the hottest links in each of 120 slices of the step; a transfer counts with its mean rate."""
    timeline = played.timeline
    used = timeline.link_bytes / played.link_capacity
    hot = [int(link) for link in np.argsort(-used, kind="stable")[:MAX_ROWS] if used[link] > 0]
    edges = np.linspace(timeline.origin, timeline.origin + timeline.step_ps, BINS + 1)
    rows = [_load(played, link, edges) for link in hot]
    return {
        "links": [played.link_name[link] for link in hot],
        "step_s": timeline.step_seconds,
        "utilisation": [np.round(row, 4).tolist() for row in rows],
    }


def _load(played: Played, link: int, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[bins]: bytes in each slice over what the link can carry in it."""
    moved = played.timeline.transfers
    rows = np.flatnonzero(moved.link == link)
    start, length = moved.start[rows, None], np.maximum(moved.end - moved.start, 1)[rows, None]
    by_then = (np.clip((edges - start) / length, 0.0, 1.0) * moved.bytes[rows, None]).sum(axis=0)
    possible = played.link_capacity[link] * np.diff(edges) / 1e12
    return np.asarray(np.diff(by_then) / np.maximum(possible, 1e-12))


def topology(played: Played) -> dict[str, Any]:
    """Places of devices and switches, and each cable between two of them with the utilisation of both its ways."""
    cluster, timeline = played.cluster, played.timeline
    used = timeline.link_bytes / (played.link_capacity * max(timeline.step_seconds, 1e-12))
    cables: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for link, ends in enumerate(cluster.link_ends):
        low, high = sorted(ends)
        way = cables[low, high]
        way[ends] = max(way.get(ends, 0.0), float(used[link]))
    if not cables or len(cables) > MAX_CABLES:
        return {"nodes": [], "cables": [], "reason": f"{len(cables)} cables, at most {MAX_CABLES} are drawn"}
    places = _places(list(cables), {f"gpu{gpu}": int(node) for gpu, node in enumerate(cluster.node_of)})
    return {
        "nodes": [{"name": name, "x": x, "y": y} for name, (x, y) in places.items()],
        "cables": [
            {"ends": list(ends), "used": [way.get(ends), way.get((ends[1], ends[0]))]} for ends, way in cables.items()
        ],
    }


def _places(cables: list[tuple[str, str]], node_of: dict[str, int]) -> dict[str, tuple[float, float]]:
    """GPUs in a row, node by node; switches of one node below them, others above by their distance; evenly spread."""
    beside: dict[str, list[str]] = defaultdict(list)
    for a, b in cables:
        beside[a].append(b)
        beside[b].append(a)
    gpus = sorted((name for name in beside if _GPU.fullmatch(name)), key=lambda name: int(name[3:]))
    places = {name: (float(at + node_of[name]), 0.0) for at, name in enumerate(gpus)}
    many, width, height = len(set(node_of.values())) > 1, places[gpus[-1]][0], 0.0
    while len(places) < len(beside):
        row = sorted({name for place in places for name in beside[place]} - set(places))
        if not row:
            break
        inside = [name for name in row if many and len({node_of.get(near, -1) for near in beside[name]}) == 1]
        inside = [name for name in inside if all(near in node_of for near in beside[name])]
        places |= {name: (_middle(name, beside, places), -1.0) for name in inside}
        above = sorted(set(row) - set(inside), key=lambda name: (_middle(name, beside, places), len(name), name))
        height += 1.0 if above else 0.0
        places |= {name: (width * (at + 0.5) / len(above), height) for at, name in enumerate(above)}
    return places


def _middle(name: str, beside: dict[str, list[str]], places: dict[str, tuple[float, float]]) -> float:
    return float(np.mean([places[near][0] for near in beside[name] if near in places]))
