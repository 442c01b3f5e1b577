"""Rows of tokens as JSON lines: a layer, the experts that one token (or each of several) took there, and who it was.

`{"request": 0, "token": 5, "layer": 3, "topk": [17, 4], "weights": [0.7, 0.3]}`; the names that people use are read.
Without a token number the lines of a layer are its tokens in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim import atomic, foreign
from moesim.errors import BadInput
from moesim.routing.arrays import read_json_lines
from moesim.routing.importers.bare import nested
from moesim.routing.importers.format import Format, Options, header_for, layer_map, tokens_of, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import RoutingTrace, make_trace

LAYER: Final = ("layer", "layer_id", "layer_idx")
TOPK: Final = ("topk", "topk_ids", "top_k_ids", "experts", "expert_ids", "indices", "selected_experts")
TOKEN: Final = ("token", "token_idx", "token_index", "position", "pos")
REQUEST: Final = ("request", "request_id", "problem_id", "sequence", "seq_id", "sample")
WEIGHT: Final = ("weights", "topk_weights", "gating_probs", "probs", "scores")
MAX_CELLS: Final = 1 << 28


@dataclass(frozen=True)
class Row:
    """What one token took in one layer."""

    request: str
    token: int
    layer: int
    ids: Sequence[int]
    weight: Sequence[float] | None


def said(row: dict[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of these names that the row has; None without one."""
    return next((row[name] for name in names if name in row), None)


def read(path: Path, options: Options) -> RoutingTrace:
    """Raises BadInput naming the line, or the token and layer that are missing."""
    rows = list(_rows(path))
    requests = _numbers(dict.fromkeys(row.request for row in rows))
    tokens = sorted({(requests[row.request], row.token) for row in rows})
    index, layers = {token: n for n, token in enumerate(tokens)}, sorted({row.layer for row in rows})
    at = np.array([(index[requests[row.request], row.token], layers.index(row.layer)) for row in rows])
    _check_once(at, (len(tokens), len(layers)), path)
    ids, weight = _filled(rows, at, (len(tokens), len(layers)), path)
    header = header_for("token-rows", options, path, tuple(layers), layers[-1] + 1, int(ids.max()) + 1, ids.shape[2])
    who = np.array(tokens)
    return make_trace(header, ids, request=who[:, 0], position=who[:, 1], weight=weight, where=str(path))


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """Requests by number: their own where all are numbers, else in the order in which they come."""
    found = list(names)
    own = all(name.isascii() and name.isdigit() and len(name) < 10 and str(int(name)) == name for name in found)
    return {name: int(name) if own else number for number, name in enumerate(found)}


def _check_once(at: npt.NDArray[np.int64], cells: tuple[int, int], path: Path) -> None:
    """Raises BadInput where a token and layer have no row, or two."""
    foreign.check_cells(cells, MAX_CELLS, path)
    seen = np.zeros(cells, dtype=np.int64)
    np.add.at(seen, (at[:, 0], at[:, 1]), 1)
    if (seen != 1).any():
        token, layer = np.argwhere(seen != 1)[0]
        raise BadInput(f"token {token}, layer {layer} in order has {seen[token, layer]} rows, not one", where=path)


def _filled(
    rows: Sequence[Row], at: npt.NDArray[np.int64], cells: tuple[int, int], path: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
    """ids [tokens, layers, k], heaviest first where all rows have weights, -1 where a token took fewer; weights."""
    k = max(len(row.ids) for row in rows)
    foreign.check_cells((*cells, k), MAX_CELLS, path)
    ids, weight = np.full((*cells, k), -1, dtype=np.int64), np.zeros((*cells, k))
    for (token, layer), row in zip(at, rows, strict=True):
        ids[token, layer, : len(row.ids)] = row.ids
        weight[token, layer, : len(row.ids)] = row.weight or 0.0
    if any(row.weight is None for row in rows):
        return ids, None
    order = np.argsort(-np.where(ids < 0, -np.inf, weight), axis=2, kind="stable")  # scores may be negative
    return np.take_along_axis(ids, order, axis=2), np.take_along_axis(weight, order, axis=2)


def _rows(path: Path) -> Iterator[Row]:
    """A Row a token and layer, of lines that hold one token's ids or a list of them. Raises BadInput."""
    next_token: dict[tuple[str, int], int] = {}
    lines = read_json_lines(path)
    if not lines:
        raise BadInput("holds no rows", where=path)
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not isinstance(line, dict):
            raise BadInput("is no row of names and values", where=where)
        layer, request, token = said(line, LAYER), str(said(line, REQUEST) or 0), said(line, TOKEN)
        if (
            type(layer) is not int
            or not 0 <= layer < 4096
            or (token is not None and (type(token) is not int or token < 0))
        ):
            raise BadInput(f"layer {layer!r}, token {token!r} are no whole numbers", where=where, way_out="layer, topk")
        ids = np.atleast_2d(whole(nested(said(line, TOPK), where), "experts", where))
        weight = _weights(said(line, WEIGHT), ids.shape, where)
        first = next_token.get((request, layer), 0) if token is None else token
        next_token[request, layer] = first + len(ids)
        for at, one in enumerate(ids):
            yield Row(request, first + at, layer, one.tolist(), None if weight is None else weight[at].tolist())


def _weights(values: Any, shape: tuple[int, ...], where: str) -> npt.NDArray[Any] | None:
    """[n, k] beside the ids; None where there are none, or those of all experts. Raises BadInput for NaN."""
    if values is None:
        return None
    weight = np.atleast_2d(nested(values, where)).astype(np.float64)
    if not np.isfinite(weight).all():
        raise BadInput("a weight is not a finite number", where=where)
    return weight if weight.shape == shape else None


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """One line a token and layer, request after request."""
    trace = tokens_of(record, path)
    lines = []
    for row in trace.by_request.order:
        for number, layer in enumerate(layer_map(trace.header)[0]):
            taken = trace.expert[row, number] != NO_EXPERT
            one = {"request": int(trace.request[row]), "token": int(trace.position[row]), "layer": layer,
                   "topk": trace.expert[row, number][taken].tolist() or [-1]}  # fmt: skip
            if trace.weight is not None:
                one["weights"] = [round(float(w), 6) for w in trace.weight[row, number][taken]] or [0.0]
            lines.append(json.dumps(one))
    atomic.write(path, "\n".join(lines) + "\n")


TOKEN_ROWS = Format("token-rows", "JSON lines with layer and topk (request, token, weights)", True, read, write)
