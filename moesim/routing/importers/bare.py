"""Arrays as people save them, without an engine's own layout: one array, or one a layer named `layer_3`.

An .npy, an .npz, a safetensors file, or JSON (nested lists, or an object of them), told apart by their first bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim import foreign
from moesim.errors import BadInput
from moesim.routing.arrays import npz_names, read_npy_file, read_npz, read_safetensors

Array = npt.NDArray[Any]
Named = dict[str, Array]
MAX_JSON: Final = 1 << 28  # bytes of one document of nested lists
NPY, ZIP, PARQUET = b"\x93NUMPY", b"PK\3\4", b"PAR1"
LAYER: Final = re.compile(r"(?:.*\.)?layers?[._]?(\d{1,4})")
UNNAMED: Final = ""


def first_bytes(path: Path, number: int = 16) -> bytes:
    """Of a regular file. Raises BadInput."""
    foreign.regular(path)
    with foreign.reading(path, "file"), path.open("rb") as stream:
        return stream.read(number)


def named_arrays(path: Path) -> Named:
    """All arrays of a file by name; the only one of an .npy or of a bare JSON list is UNNAMED. Raises BadInput."""
    head = first_bytes(path)
    if head.startswith(NPY):
        return {UNNAMED: read_npy_file(path)}
    if head.startswith(ZIP):
        return read_npz(path, npz_names(path))
    if head[8:9] == b"{":
        return read_safetensors(path)
    found = read_json(path)
    lists = found if isinstance(found, dict) else {UNNAMED: found}
    return {
        name: nested(values, f"{path} {name}".strip()) for name, values in lists.items() if isinstance(values, list)
    }


def read_json(path: Path) -> Any:
    """One document. Raises BadInput."""
    with foreign.reading(path, "JSON document"):
        return json.loads(foreign.read_bytes(path, MAX_JSON).decode("utf-8-sig"))


def nested(values: Any, where: Path | str) -> Array:
    """Nested lists of numbers -> array. Raises BadInput for ragged ones and for what is no number."""
    try:
        found = np.asarray(values)
    except ValueError:
        raise BadInput("lists of different lengths", where=where) from None
    if found.dtype.kind not in "iuf" or not found.size:
        raise BadInput("holds no lists of numbers", where=where)
    return found


def only_array(arrays: Mapping[str, Array], path: Path) -> Array:
    """The one array of a file. Raises BadInput with the names where there are several."""
    if len(arrays) != 1:
        raise BadInput(f"holds {len(arrays)} arrays", where=path, way_out=f"one of: {', '.join(sorted(arrays))[:200]}")
    return next(iter(arrays.values()))


def by_layer(arrays: Mapping[str, Array]) -> dict[int, Array]:
    """Arrays named by their model layer, in its order; {} where one is named otherwise."""
    matches = {name: LAYER.fullmatch(name) for name in arrays}
    layers = {int(match[1]): name for name, match in matches.items() if match is not None}
    return {layer: arrays[layers[layer]] for layer in sorted(layers)} if len(layers) == len(arrays) else {}


def stacked(layers: Mapping[int, Array], path: Path) -> Array:
    """[L, ...] of layers of one shape. Raises BadInput naming the first that differs."""
    shapes = {layer: values.shape for layer, values in layers.items()}
    first = next(iter(shapes.values()))
    for layer, shape in shapes.items():
        if shape != first:
            raise BadInput(f"layer {layer} has shape {shape}, the first {first}", where=path)
    return np.stack(list(layers.values()))
