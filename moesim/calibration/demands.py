"""Records of one kernel -> their Demand, by the functions that a profile asks with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from moesim.calibration.behind import behind
from moesim.calibration.records import Records
from moesim.costs import latent, shapes, sparse
from moesim.costs.recurrences import convolution, recurrence
from moesim.costs.shapes import Demand, Rows
from moesim.models import Attention, Compressed

TAPS: Final = 4  # of every convolution that was measured
COPIES: Final = 4  # of hyper-connections that were measured


def _v4(heads: int, queries: int, ratio: int, picked: int) -> Compressed:
    """DeepSeek-V4's; picked: 0, without an indexer."""
    found = Compressed("mla", heads, heads, 512, 512, queries, window=128, ratio=ratio, out_rank=1024,
                       out_groups=heads // 8)  # fmt: skip
    return replace(found, selected=picked, index_heads=64, index_dim=128) if picked else found


SPARSE: Final[dict[str, dict[int, Attention]]] = {  # models whose modules were measured, by their width
    "dsa": {  # DeepSeek-V3.2, GLM-5
        7168: Attention("mla", 128, 128, 192, 128, 1536, 512, 128, 64, selected=2048, index_heads=64, index_dim=128),
        6144: Attention("mla", 64, 64, 256, 256, 2048, 512, 192, 64, selected=2048, index_heads=32, index_dim=128),
    },
    "csa": {4096: _v4(64, 1024, 4, 512), 7168: _v4(128, 1536, 4, 1024)},
    "hca": {4096: _v4(64, 1024, 128, 0), 7168: _v4(128, 1536, 128, 0)},
    "msa": {6144: Attention("gqa", 64, 4, 128, 128, selected=2048, index_heads=4, index_dim=128)},
}
KIND: Final = {
    "gemm": "gemm", "grouped_gemm": "experts", "attention_prefill": "attention", "attention_decode": "attention",
    "attention_encoder": "encoder", "mla_prefill": "mla", "mla_decode": "mla",
    "conv_prefill": "convolution", "conv_decode": "convolution",
    "absorbed": "absorbed", "latent_prefill": "sparse", "latent_decode": "sparse",
    **{f"{kind}_{phase}": "sparse" for kind in ("dsa", "dsa_reuse", "csa", "hca", "msa")
       for phase in ("prefill", "decode")},
    "hyper_pre": "hyper", "hyper_post": "hyper",
    "gdn_prefill": "recurrence", "gdn_decode": "recurrence", "kda_prefill": "recurrence", "kda_decode": "recurrence",
    "all_reduce": "collective", "all_gather": "collective",
    "reduce_scatter": "collective", "all_to_all": "collective", "dispatch": "exchange", "combine": "exchange",
}  # fmt: skip


def demand_of(records: Records, tile: int) -> Demand:
    """Records of one operator, kernel and dtypes -> float64[rows] each."""
    op = str(records["op"][0])
    return _DEMANDS[KIND[op]](records, op, tile)


def group_rows(records: Records, tile: int) -> Rows:
    """Rows of each record, the mean over its draws of the histogram."""
    sizes, starts = records.lists("group_sizes")
    draws = np.maximum(records["draws"], 1)
    length = np.diff(starts)
    groups = np.repeat(length // draws, draws)
    first = np.concatenate([[0], np.cumsum(groups)[:-1]])
    whole = (sizes + (tile - 1)) & -tile
    per_draw = [
        np.add.reduceat(sizes, first, dtype=np.int64),
        np.add.reduceat(sizes > 0, first, dtype=np.int64),
        np.maximum.reduceat(sizes, first),
        np.add.reduceat(whole, first, dtype=np.int64),
    ]
    owner = np.concatenate([[0], np.cumsum(draws)[:-1]])
    return Rows(*(np.add.reduceat(column.astype(np.float64), owner) / draws for column in per_draw))


def _gemm(records: Records, op: str, tile: int) -> Demand:
    return shapes.gemm(records["m"], records["n"], records["k"], str(records["dtype"][0]), tile)


def _experts(records: Records, op: str, tile: int) -> Demand:
    rows, tokens = group_rows(records, tile), records["tokens"] * records["topk"]
    if behind(str(records["kernel"][0])):
        tokens = 0 * tokens
    return shapes.experts(
        rows,
        records["hidden"],
        records["inter"] / records["tp"],
        str(records["dtype"][0]),
        records["matrices"],
        np.where(tokens > 0, tokens, rows.total),
    )


def _attention(records: Records, op: str, tile: int) -> Demand:
    query, context, batch = (records[name] for name in ("query", "context", "batch"))
    heads, kv_heads, width = (records[name] for name in ("heads", "kv_heads", "head_dim"))
    cache = str(records["cache_dtype"][0])
    return shapes.attention(op.partition("_")[2], query, context, batch, heads, kv_heads, width, width, cache)


def _encoder(records: Records, op: str, tile: int) -> Demand:
    query, batch, heads, kv_heads, width = (
        records[name] for name in ("query", "batch", "heads", "kv_heads", "head_dim")
    )
    return shapes.full_attention(query, batch, heads, kv_heads, width, width, tile)


def _latent(records: Records, op: str, tile: int) -> Demand:
    query, context, batch, heads = (records[name] for name in ("query", "context", "batch", "heads"))
    return shapes.latent_attention(op.partition("_")[2], query, context, batch, heads, str(records["cache_dtype"][0]))


def _absorbed(records: Records, op: str, tile: int) -> Demand:
    return latent.absorbed(records["tokens"], records["heads"], latent.MEASURED)


def _sparse(records: Records, op: str, tile: int) -> Demand:
    """Modules. Of each rank's heads apart: a module's weights depend on them."""
    kinds, number = np.unique(np.stack([records["hidden"], records["heads"]]), axis=1, return_inverse=True)
    query, context, batch = (records[name] for name in ("query", "context", "batch"))
    dtypes = (str(records["dtype"][0]), str(records["cache_dtype"][0]))
    parts, where_of = [], [np.flatnonzero(number.ravel() == one) for one in range(kinds.shape[1])]
    for (hidden, heads), own in zip(kinds.T.tolist(), where_of, strict=True):
        rows = (query[own], context[own], batch[own])
        if op.startswith("latent"):
            shape = latent.as_measured(latent.MEASURED, heads)
            parts.append(latent.module(op.partition("_")[2], *rows, shape, *dtypes))
            continue
        shape = SPARSE[op.partition("_")[0]][hidden].with_heads(heads)
        shape = replace(shape, index_heads=0) if "reuse" in op else shape
        parts.append(sparse.module(*rows, shape, hidden, *dtypes))
    order = np.argsort(np.concatenate(where_of))
    flops, moved, padded = (np.concatenate([part[n] for part in parts])[order] for n in range(3))
    counts, where = (
        tuple(np.concatenate(column)[order] for column in zip(*(part[n] for part in parts), strict=True))
        for n in (3, 4)
    )
    return Demand(flops, moved, padded, counts, where)


def _convolution(records: Records, op: str, tile: int) -> Demand:
    return convolution(op.partition("_")[2], records["query"], records["batch"], records["hidden"], TAPS)


def _recurrence(records: Records, op: str, tile: int) -> Demand:
    kind, _, phase = op.partition("_")
    query, batch, keys, heads, width = (records[name] for name in ("query", "batch", "kv_heads", "heads", "head_dim"))
    return recurrence(phase, query, batch, keys, heads, width, width, kind)


def _hyper(records: Records, op: str, tile: int) -> Demand:
    return shapes.hyper(op.partition("_")[2], records["tokens"], records["hidden"], COPIES)


def _collective(records: Records, op: str, tile: int) -> Demand:
    return shapes.collective(op, records["bytes"], records["world"])


def _exchange(records: Records, op: str, tile: int) -> Demand:
    tokens, hidden, topk = (records[name] for name in ("tokens", "hidden", "topk"))
    low_latency = "low_latency" in str(records["kernel"][0])
    return shapes.exchange(tokens, hidden, topk, str(records["dtype"][0]), low_latency, records["sms"])


_DEMANDS: Final[dict[str, Callable[[Records, str, int], Demand]]] = {
    "gemm": _gemm, "experts": _experts, "attention": _attention, "encoder": _encoder,
    "mla": _latent, "absorbed": _absorbed,
    "sparse": _sparse, "hyper": _hyper, "convolution": _convolution, "recurrence": _recurrence,
    "collective": _collective, "exchange": _exchange,
}  # fmt: skip
