"""Residual grids: what the analytic form leaves over, on powers of two of a shape's coordinates; Parquet."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
AXES = ("x", "y", "z")


@dataclass(frozen=True)
class ResidualGrid:
    """axes: three ascending float64 arrays of log2 coordinates; log_ratio float64[x, y, z]: ln(measured / form)."""

    axes: tuple[Floats, Floats, Floats]
    log_ratio: Floats

    def at(self, *coordinates: npt.ArrayLike) -> Floats:
        """Three arrays that broadcast -> the factor exp(residual), trilinear, held constant beyond the edges."""
        wide = np.broadcast_arrays(*(np.log2(np.maximum(np.asarray(c, dtype=np.float64), 1e-9)) for c in coordinates))
        cells = [_locate(axis, values) for axis, values in zip(self.axes, wide, strict=True)]
        total = np.zeros(wide[0].shape)
        for corner in itertools.product((0, 1), repeat=3):
            weight = np.ones(wide[0].shape)
            index = []
            for side, (low, fraction), axis in zip(corner, cells, self.axes, strict=True):
                weight = weight * (fraction if side else 1 - fraction)
                index.append(np.minimum(low + side, len(axis) - 1))
            total += weight * self.log_ratio[tuple(index)]
        factor: Floats = np.exp(total)
        return factor


def _locate(axis: Floats, values: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The cell of each value and where in it, 0 to 1; values beyond the axis sit at its ends."""
    inside = np.clip(values, axis[0], axis[-1])
    low = np.clip(np.searchsorted(axis, inside, side="right") - 1, 0, max(len(axis) - 2, 0))
    width = axis[np.minimum(low + 1, len(axis) - 1)] - axis[low]
    fraction: Floats = np.where(width > 0, (inside - axis[low]) / np.where(width > 0, width, 1.0), 0.0)
    return low, fraction


def read_grids(path: Path) -> dict[str, ResidualGrid]:
    """The grids of a profile, {} where the file does not exist. Raises BadInput on a damaged file."""
    if not path.exists():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ("operator", *AXES, "log_ratio")}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise BadInput(f"damaged residual grid: {str(error).splitlines()[0]}", where=path) from None
    operators = sorted(set(columns["operator"].tolist()))
    return {operator: _grid(columns, columns["operator"] == operator) for operator in operators}


def _grid(columns: dict[str, npt.NDArray[np.float64]], rows: npt.NDArray[np.bool_]) -> ResidualGrid:
    axes = [np.unique(columns[axis][rows]) for axis in AXES]
    values = np.zeros(tuple(len(axis) for axis in axes))
    index = tuple(np.searchsorted(axis, columns[name][rows]) for name, axis in zip(AXES, axes, strict=True))
    values[index] = columns["log_ratio"][rows]
    return ResidualGrid((axes[0], axes[1], axes[2]), values)


def write_grids(path: Path, grids: dict[str, ResidualGrid]) -> None:
    """Grids -> Parquet with page checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in (*AXES, "log_ratio")}
    names: list[str] = []
    for operator, grid in sorted(grids.items()):
        mesh = np.meshgrid(*grid.axes, indexing="ij")
        for name, values in zip((*AXES, "log_ratio"), (*mesh, grid.log_ratio), strict=True):
            parts[name].append(values.ravel())
        names += [operator] * grid.log_ratio.size
    table = pa.table({"operator": names, **{name: np.concatenate(values) for name, values in parts.items()}})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
