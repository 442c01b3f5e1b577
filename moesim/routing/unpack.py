"""torch files of recorders -> npz that the importers read; the one place that opens .pt, with weights_only.

Kept apart from the importers, which never unpickle. SGLang's modes are told by their keys: `logical_count` is `stat`;
`records` with `topk_ids_of_layer` is `per_token`, without it `per_pass`. The files of all ranks go together. A list of
tensors [tokens, k] is Megatron's routing replay, in the order of its MoE layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moesim.errors import BadInput
from moesim.routing.arrays import write_npz


def unpack(paths: Sequence[Path], out: Path) -> str:
    """Writes the npz and returns the mode. Raises BadInput for anything but plain tensors and containers."""
    loaded = [_load(path) for path in paths]
    if any(isinstance(one, list) for one in loaded):
        if len(loaded) > 1:
            what = "a list of tensors is one rank's replay of Megatron: it is unpacked by itself"
            raise BadInput(what, where=paths[0], way_out="one file")
        write_npz(out, **{f"layer_{number}": _array(layer) for number, layer in enumerate(loaded[0])})
        return "megatron-replay"
    if "logical_count" in loaded[0]:
        write_npz(out, logical_count=sum(_array(file["logical_count"]) for file in loaded))
        return "sglang-stat"
    records = [record for file in loaded for record in file["records"]]
    mapping = _array(loaded[0]["last_physical_to_logical_map"])
    if records and "topk_ids_of_layer" in records[0]:
        write_npz(out, last_physical_to_logical_map=mapping, **_tokens(records))
        return "sglang-per-token"
    names = ("forward_pass_id", "rank")
    write_npz(
        out,
        **{name: np.array([int(record[name]) for record in records]) for name in names},
        global_physical_count=np.stack([_array(record["global_physical_count"]) for record in records]),
        last_physical_to_logical_map=mapping,
    )
    return "sglang-per-pass"


def _load(path: Path) -> Any:
    """A dictionary of SGLang's, or a list of tensors [tokens, k]. Raises BadInput."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors of many kinds
        raise BadInput(f"torch refuses it ({str(error).splitlines()[0][:120]})", where=path) from None
    if isinstance(found, list) and found and all(isinstance(one, torch.Tensor) and one.dim() == 2 for one in found):
        return found
    if not isinstance(found, dict) or not {"logical_count", "records"} & set(found):
        raise BadInput("holds neither logical_count nor records", where=path)
    return found


def _array(values: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values).astype(np.int64)


def _tokens(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {}
    for record in records:
        ids = _array(record["topk_ids_of_layer"]).transpose(1, 0, 2)
        lengths = list(map(int, record["extend_seq_lens"] or [])) or [1] * len(ids)
        if sum(lengths) != len(ids):
            raise BadInput(f"pass {record['forward_pass_id']}: {sum(lengths)} tokens in sequences, {len(ids)} recorded")
        row = {
            "topk_ids": ids,
            "input_ids": _array(record["input_ids"]),
            "positions": _array(record["positions"]),
            "sequence": np.repeat(np.arange(len(lengths)), lengths),
        }
        row |= {n: np.full(len(ids), int(record[n])) for n in ("forward_pass_id", "rank", "forward_mode")}
        for name, values in row.items():
            columns.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in columns.items()}
