"""Router logits as Hugging Face's `output_router_logits=True` gives them, saved as an npz `router_logits` [L, T, E],
or as one array [T, E] a MoE layer named `layer_3`.

The rule of the model turns them into choices: `softmax` (softmax, then top-k), or `sigmoid-groups` (DeepSeek-V3:
sigmoid, bias, the best groups by the sum of their two best scores, then top-k; weights from the unbiased scores).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, unknown_name
from moesim.routing.arrays import npz_names, read_npz, write_npz
from moesim.routing.importers.bare import ZIP, by_layer, first_bytes, named_arrays, stacked
from moesim.routing.importers.format import Format, Options, header_for, tokens_of, whole
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace, make_trace

Floats = npt.NDArray[np.float32]
RULES: Final = ("softmax", "sigmoid-groups")
COLUMNS: Final = ("request", "position", "phase", "domain", "step", "source_rank", "token_id")


def read(path: Path, options: Options) -> RoutingTrace:
    """`router_logits` [L, T, E], optional `bias` [L, E], row columns [T]. Needs top-k or a model. Raises BadInput."""
    arrays, layers = _arrays(path)
    logits = arrays.pop("router_logits").astype(np.float32)
    top_k = options.model.top_k if options.model else options.top_k
    if logits.ndim != 3 or not logits.size or top_k is None:
        raise BadInput(f"logits {logits.shape} need [layers, tokens, experts] and top-k", where=path, way_out="--top-k")
    if not np.isfinite(logits).all():
        layer, token = np.argwhere(~np.isfinite(logits))[0][:2]
        raise BadInput(f"layer {layer}, token {token}: a logit is not a finite number", where=path)
    if not 1 <= top_k <= logits.shape[2]:
        raise BadInput(f"top-{top_k} of {logits.shape[2]} experts", where=path, way_out="--top-k")
    bias = arrays.pop("bias", np.zeros((len(logits), logits.shape[2])))
    if bias.shape != (len(logits), logits.shape[2]) or not np.isfinite(bias).all():
        raise BadInput(f"bias {bias.shape} is not [layers, experts] of finite numbers", where=path)
    ids, weight = choose(logits, top_k, options, bias)
    layers = layers or tuple(range(len(logits)))
    header = header_for("router-logits", options, path, layers, layers[-1] + 1, logits.shape[2], top_k)
    moved = logits.transpose(1, 0, 2)
    return make_trace(header, ids, weight=weight, logits=moved, where=str(path), **_rows(arrays))


def _arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], tuple[int, ...]]:
    """`router_logits` and what stands beside it, and the model layers where arrays are named by them."""
    if first_bytes(path).startswith(ZIP) and "router_logits" in npz_names(path):
        return read_npz(path, ("router_logits",), ("bias", *COLUMNS)), ()
    layers = by_layer(named_arrays(path))
    if not layers:
        raise BadInput("holds neither router_logits nor arrays named layer_0, layer_1 ...", where=path)
    return {"router_logits": stacked(layers, path)}, tuple(layers)


def _rows(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    return {name: whole(values, name, "router logits") for name, values in arrays.items() if name in COLUMNS}


def choose(
    logits: Floats, top_k: int, options: Options, bias: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """logits [L, T, E] -> (ids int64[T, L, k] heaviest first, weight float32[T, L, k]) by the rule of `options`."""
    if options.rule not in RULES:
        raise unknown_name("routing rule", options.rule, RULES)
    if options.rule == "softmax":
        raised = np.exp(logits - logits.max(axis=2, keepdims=True))
        scores = raised / raised.sum(axis=2, keepdims=True)
        chosen_by = scores
    else:
        scores = 1 / (1 + np.exp(-logits))
        chosen_by = _best_groups(scores + bias[:, None], options)
    ids = np.argsort(-chosen_by, axis=2, kind="stable")[:, :, :top_k]
    weight = np.take_along_axis(scores, ids, axis=2)
    order = np.argsort(-weight, axis=2, kind="stable")
    ids, weight = (np.take_along_axis(values, order, axis=2).transpose(1, 0, 2) for values in (ids, weight))
    return ids, (weight / weight.sum(axis=2, keepdims=True)).astype(np.float32)


def _best_groups(scores: npt.NDArray[Any], options: Options) -> npt.NDArray[Any]:
    """Scores outside the best `topk_groups` groups become -inf."""
    model = options.model
    if model is None or model.topk_groups >= model.num_groups:
        return scores
    grouped = scores.reshape(*scores.shape[:2], model.num_groups, -1)
    best = np.sort(grouped, axis=3)[..., -2:].sum(axis=3)
    kept = np.argsort(-best, axis=2, kind="stable")[:, :, : model.topk_groups]
    outside = np.ones(best.shape, dtype=bool)
    np.put_along_axis(outside, kept, False, axis=2)
    return np.where(outside[..., None], -np.inf, grouped).reshape(scores.shape)


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """Logits and rows of a trace that carries logits. Raises BadInput for one that does not."""
    trace = tokens_of(record, path)
    if trace.logits is None:
        raise BadInput("the trace carries no logits", where=path, way_out="record it with keep_logits=True")
    rows = {name: getattr(trace, name) for name in COLUMNS if getattr(trace, name) is not None}
    write_npz(path, router_logits=trace.logits.transpose(1, 0, 2), **rows)


ROUTER_LOGITS = Format(
    "router-logits",
    "npz with router_logits [layers, tokens, experts], or arrays layer_i [tokens, experts]",
    True,
    read,
    write,
)
