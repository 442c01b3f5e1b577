"""The memory ledger: what each pool has to hold, row by row, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.errors import DoesNotFit
from moesim.units import show_bytes


@dataclass(frozen=True)
class MemoryRow:
    """`bytes` that `item` takes in `pool`; `knob` is the scenario key that changes it, "" where none does."""

    pool: str
    item: str
    bytes: int
    knob: str = ""


@dataclass(frozen=True)
class MemoryLedger:
    """Rows of the fullest device of each pool, and the bytes each pool has."""

    rows: tuple[MemoryRow, ...]
    capacity: dict[str, int]

    def used(self, pool: str) -> int:
        """Bytes needed in `pool`."""
        return sum(row.bytes for row in self.rows if row.pool == pool)

    def check(self) -> None:
        """Raises DoesNotFit with the rows of the first pool that is too small and the change that would help most."""
        for pool, capacity in self.capacity.items():
            missing = self.used(pool) - capacity
            if missing > 0:
                raise DoesNotFit(self._shortage(pool, missing), way_out=self._smallest_change(pool, missing))

    def _shortage(self, pool: str, missing: int) -> str:
        rows = sorted((row for row in self.rows if row.pool == pool), key=lambda row: -row.bytes)
        table = ", ".join(f"{row.item} {show_bytes(row.bytes)}" for row in rows)
        have = show_bytes(self.capacity[pool])
        return f"{pool} needs {show_bytes(self.used(pool))} of {have}, {show_bytes(missing)} too much ({table})"

    def _smallest_change(self, pool: str, missing: int) -> str:
        """The row whose relative cut is smallest among those that a knob can shrink enough."""
        rows = [row for row in self.rows if row.pool == pool and row.knob and row.bytes > missing]
        if not rows:
            return "more or larger devices, or lower precision"
        best = max(rows, key=lambda row: row.bytes)
        return f"cut {best.item} to {show_bytes(best.bytes - missing)} ({best.knob})"
