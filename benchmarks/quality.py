"""How many slow cells the quality checks find: `python -m benchmarks.quality [SYSTEM ...]`.

In a copy of each imported table every hundredth sound cell, drawn by seed, is made 8.5 times slower. Printed: how many
of these are labelled, and how many of the other rows that were not labelled before are accused. Bars: >= 95 %, <= 1 %.
Needs aiconfigurator-core 0.12.0.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

from moesim.calibration.aiconfigurator import import_tables
from moesim.calibration.kernels import name_of
from moesim.calibration.physics import bound, by_kernel, label
from moesim.calibration.quality import CELLS, SLOW, slow_labels
from moesim.calibration.records import OK, SCHEMA, Records
from moesim.calibration.systems import find_system

FACTOR, SHARE = 8.5, 100


def main() -> None:
    """Print a line for each kernel and for each system."""
    for name in sys.argv[1:] or ["h100_sxm"]:
        system = find_system(name)
        records = label(import_tables(system.facts.table, CELLS), system)
        parts = [part for part in by_kernel(records) if str(part["op"][0]) in CELLS]
        bounds = [bound(part, system.peaks(str(part["dtype"][0]))) for part in parts]
        before = [part["label"] for part in parts]
        rng = np.random.default_rng(0)
        cells = [rng.choice(np.flatnonzero(one == OK), -(-len(one) // SHARE), replace=False) if (one == OK).any()
                 else np.zeros(0, dtype=int) for one in before]  # fmt: skip
        after = slow_labels([_slower(part, cell) for part, cell in zip(parts, cells, strict=True)], bounds)
        found, planted, accused, sound = (np.zeros(len(parts), dtype=int) for _ in range(4))
        for number, (part, old, new, cell) in enumerate(zip(parts, before, after, cells, strict=True)):
            others = old == OK
            others[cell] = False
            found[number], planted[number] = np.isin(new[cell], list(SLOW)).sum(), len(cell)
            accused[number], sound[number] = (new[others] != OK).sum(), others.sum()
            slow = np.isin(old.astype(str), list(SLOW)).mean()
            print(f"{name_of(part):92} {len(part):6} rows, {slow:6.1%} slow; {found[number]}/{planted[number]} found, "
                  f"{accused[number]} accused")  # fmt: skip
        print(f"{name}: {found.sum() / planted.sum():.2%} of {planted.sum()} planted cells found (bar 95 %), "
              f"{accused.sum() / sound.sum():.3%} of {sound.sum()} others accused (bar 1 %)")  # fmt: skip


def _slower(records: Records, cells: np.ndarray) -> Records:
    seconds = records["seconds"].copy()
    seconds[cells] *= FACTOR
    index = SCHEMA.get_field_index("seconds")
    return Records(records.table.set_column(index, SCHEMA.field(index), pa.array(seconds)))


if __name__ == "__main__":
    main()
