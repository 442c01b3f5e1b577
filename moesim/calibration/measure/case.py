"""Case: one thing to measure, said in the columns of records."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    operator: name in the registry of this room; op: what records call it; shape: columns of records and their values;
    group_sizes [ranks, local experts]: rows of each rank's experts, () where the operator has none; split_matrix
    [world, world]: rows from source to destination; mode: eager or graph; label: "" or why no fit may use it; seed: of
    the routing; kernel: where the operator has several, as records call it.
    """

    operator: str
    op: str
    dtype: str
    shape: tuple[tuple[str, int], ...] = ()
    distribution: str = ""
    group_sizes: tuple[tuple[int, ...], ...] = ()
    split_matrix: tuple[tuple[int, ...], ...] = ()
    mode: str = "eager"
    label: str = ""
    seed: int = 0
    kernel: str = ""

    def __getitem__(self, column: str) -> int:
        """The value of a shape's column, 0 where it has none."""
        return self._columns.get(column, 0)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return dict(self.shape)

    def sizes(self, rank: int) -> tuple[int, ...]:
        """Rows of each expert of one rank."""
        return self.group_sizes[rank % len(self.group_sizes)] if self.group_sizes else ()

    @property
    def key(self) -> str:
        """Names the case in a journal: equal cases have equal keys, on every machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]

    def row(self, rank: int) -> dict[str, Any]:
        """What the record of this case says of it on one rank."""
        sizes = self.sizes(rank)
        return {
            **self._columns,
            "op": self.op,
            "dtype": self.dtype,
            "cache_dtype": self.dtype if self["kv_heads"] else "",
            "distribution": self.distribution,
            "group_sizes": list(sizes),
            "draws": 1 if sizes else 0,
            "group_basis": "recorded" if sizes else "",
            "split_matrix": [rows for source in self.split_matrix for rows in source],
            "mode": self.mode,
        }

    def __str__(self) -> str:
        shape = " ".join(f"{name}={value}" for name, value in self.shape)
        return " ".join(filter(None, (self.operator, self.kernel, shape, self.dtype, self.distribution, self.mode)))


def shape(**columns: int) -> tuple[tuple[str, int], ...]:
    """Columns in a fixed order, for `Case.shape`."""
    return tuple(sorted(columns.items()))
