"""`moesim validate network`: times of DeepEP's kernels against the tables that DeepSeek published."""

from __future__ import annotations

from pathlib import Path

from moesim import shipped
from moesim.costs import load_costs
from moesim.studies.validation.deepep_fit import FORMS, held_out_errors
from moesim.studies.validation.deepep_table import Row, Table, read_table
from moesim.studies.validation.validation import Point, Validation

DATA = ("workloads", "validation", "deepep_v1.csv")
PROFILE = "h100_sxm"
FEWEST_SIZES = 3  # EP sizes without which leaving one out leaves too little to fit


def validate(data: Path | None = None) -> Validation:
    """Predict every point of a table with the shipped constants. Raises BadInput.

    Where a kernel was measured at several EP sizes, its constants are also fitted anew without each of them.
    """
    path = data or shipped.shipped(*DATA)
    table = read_table(path)
    return Validation(
        suite="network",
        points=tuple(_point(row) for row in table.rows),
        breakdown_by=("kernel", "ep"),
        provenance={
            "data": path.name,
            "costs": PROFILE,
            "routing": "uniform over 256 experts unless the table says otherwise, tokens limited to their best nodes",
            "network": "mean arrival over ranks, port loads on the shipped topology",
        },
        warnings=_warnings(table),
        held_out={kernel: held_out_errors(kernel, rows) for kernel, rows in _refittable(table).items()},
    )


def _point(row: Row) -> Point:
    case = row.situation.case
    device = row.situation.group.cluster.devices[0]
    predicted = row.situation.seconds(load_costs(PROFILE, device).communication)
    keys = {
        "kernel": row.kernel,
        "ep": str(case.ranks),
        "op": case.op,
        "system": case.topology,
        "version": case.version or row.situation.algorithm.usual_version,
        "path": row.situation.algorithm.same_node,
        **({"sms": row.sms} if row.sms else {}),
    }
    return Point(keys, row.in_unit, row.value, row.to_unit(predicted))


def _refittable(table: Table) -> dict[str, list[Row]]:
    """kernel -> its rows, where they are of one system and version and of several EP sizes."""
    found = {}
    for kernel in FORMS:
        rows = [row for row in table.rows if row.kernel == kernel]
        alike = {(row.situation.case.topology, row.situation.algorithm) for row in rows}
        if len(alike) == 1 and len({row.situation.case.ranks for row in rows}) >= FEWEST_SIZES:
            found[kernel] = rows
    return found


def _warnings(table: Table) -> tuple[str, ...]:
    repeated = f"{table.repeated} rows in GB/s left out: the same points stand there in seconds"
    return (*table.refused, *([repeated] if table.repeated else []))
