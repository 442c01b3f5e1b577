"""Counts of tokens per expert as people save them: no engine's recorder, but its numbers.

JSON `{"logical_count": ...}` as SGLang's `--init-expert-location` takes it, whole numbers or fractions; an object
with `tokens_per_expert` (Megatron's `local_tokens_per_expert`); JSON lines with `layer` and `tokens_per_expert`; one
array [layers, experts] or [steps, layers, experts]; arrays `layer_3` [experts].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim import atomic, foreign
from moesim.errors import BadInput
from moesim.routing.arrays import read_json_lines
from moesim.routing.importers.bare import Array, by_layer, first_bytes, named_arrays, only_array, stacked
from moesim.routing.importers.format import LARGEST, Format, Options, counts_of, whole
from moesim.routing.importers.physical import dense_counts, load_record
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import RoutingTrace

NAMES: Final = ("logical_count", "tokens_per_expert", "local_tokens_per_expert", "expert_counts", "counts")
PARTS: Final = 1000  # a fraction becomes thousandths
MAX_CELLS: Final = 1 << 28
STEPS: Final = ("step", "iteration", "forward_pass_id")


def read(path: Path, options: Options) -> LoadRecord:
    """Fractions become whole thousandths and the origin says so. Raises BadInput."""
    counts = _table(path)
    if counts.ndim == 2:
        counts = counts[None]
    if counts.ndim != 3 or not counts.size:
        raise BadInput(f"counts are {counts.dtype} {counts.shape}", where=path, way_out="[steps,] layers, experts")
    numbers, note = _whole(counts, path)
    return load_record("expert-counts" + note, path, options, numbers)


def _table(path: Path) -> Array:
    """[layers, experts] or [steps, layers, experts]."""
    if first_bytes(path, 1) == b"{" and (rows := _rows(path)):
        return _joined(rows, path)
    arrays = named_arrays(path)
    named = [name for name in NAMES if name in arrays]
    if named:
        return arrays[named[0]]
    layers = by_layer(arrays)
    return stacked(layers, path) if layers else only_array(arrays, path)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines with a layer and its counts; [] where the file is one document of another kind."""
    rows = read_json_lines(path)
    return rows if all(isinstance(row, dict) and "layer" in row for row in rows) else []


def _joined(rows: list[dict[str, Any]], path: Path) -> Array:
    """[steps, layers, experts] of lines in any order. Raises BadInput naming the line."""
    found: dict[tuple[int, int], list[Any]] = {}
    for number, row in enumerate(rows, 1):
        values = next((row[name] for name in NAMES if isinstance(row.get(name), list)), None)
        step = next((row[name] for name in STEPS if name in row), 0)
        if values is None or type(step) is not int or type(row["layer"]) is not int or row["layer"] < 0:
            raise BadInput(
                f"needs whole numbers layer and step, and one of {', '.join(NAMES)}", where=f"{path}:{number}"
            )
        if (step, row["layer"]) in found:
            raise BadInput(f"step {step}, layer {row['layer']} a second time", where=f"{path}:{number}")
        found[step, row["layer"]] = values
    steps, layers = sorted({step for step, _ in found}), range(1 + max(layer for _, layer in found))
    experts = len(next(iter(found.values())))
    foreign.check_cells((len(steps), len(layers), experts), MAX_CELLS, path)
    if any(len(values) != experts for values in found.values()):
        raise BadInput(f"layers do not all have {experts} experts", where=path)
    table = np.zeros((len(steps), len(layers), experts))
    for (step, layer), values in found.items():
        table[steps.index(step), layer] = values
    return table


def _whole(counts: Array, path: Path) -> tuple[npt.NDArray[np.int64], str]:
    """Counts as int64, and what was done to them. Raises BadInput for NaN, negative and huge ones."""
    if counts.dtype.kind in "iu":
        return whole(counts, "counts", path), ""
    if counts.dtype.kind != "f" or not np.isfinite(counts).all():
        raise BadInput("a count is not a finite number", where=path)
    if (np.abs(counts) > LARGEST / PARTS).any():
        raise BadInput(f"counts reach {np.abs(counts).max():.3g}", where=path, way_out=f"at most {LARGEST // PARTS}")
    if (counts == np.floor(counts)).all():
        return counts.astype(np.int64), ""
    return np.rint(counts * PARTS).astype(np.int64), f" (fractions, as {PARTS}ths)"


def write(record: RoutingTrace | LoadRecord, path: Path) -> None:
    """JSON [steps, layers, experts], which `--init-expert-location` takes."""
    atomic.write(path, json.dumps({"logical_count": dense_counts(counts_of(record, path)).tolist()}) + "\n")


WHAT = 'JSON {"logical_count"}, tokens_per_expert, or an array [steps,] layers, experts'
EXPERT_COUNTS = Format("expert-counts", WHAT, False, read, write)
