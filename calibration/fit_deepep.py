"""Fit the constants of DeepEP's kernels in `*_constants.yaml` to its published tables, and print how well they hold.

    python calibration/fit_deepep.py

Constants of the newest version come from `deepep_v1.csv`; the tables of the first version and of version 2 are
predicted with them before anything is fitted to the former. Nothing is fitted to version 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from moesim import shipped
from moesim.costs import CommunicationCost
from moesim.studies.validation.deepep_fit import FORMS, START, Costs, fit, held_out_errors
from moesim.studies.validation.deepep_table import Row, read_table


def rows_of(name: str, kernel: str) -> list[Row]:
    """The rows of one kernel in a shipped table."""
    table = read_table(shipped.shipped("workloads", "validation", f"{name}.csv"))
    return [row for row in table.rows if row.kernel == kernel]


def show(what: str, rows: Sequence[Row], costs: Costs) -> None:
    """One line of errors."""
    tell(what, [row.situation.seconds(costs) / row.seconds - 1 for row in rows])


def tell(what: str, errors: Sequence[float]) -> None:
    """One line."""
    size = np.abs(errors)
    print(f"  {what:<64} mean {size.mean():.1%}, largest {size.max():.1%}, {len(size)} points")


def first_normal(newest: Costs, rows: Sequence[Row]) -> Costs:
    """The first version's NIC rate; all else as in the newest."""

    def costs(nic: float) -> Costs:
        nvlink = newest["deepep_normal"].efficiency["nvlink"]
        return newest | {"deepep_normal": CommunicationCost(START, {"nvlink": nvlink, "nic": nic})}

    logs = lambda x: [np.log(row.situation.seconds(costs(x[0])) / row.seconds) for row in rows]  # noqa: E731
    return costs(float(least_squares(logs, (0.8,), diff_step=[1e-4]).x[0]))


def main() -> None:
    """Print constants and errors."""
    for kernel in FORMS:
        rows, first = rows_of("deepep_v1", kernel), rows_of("deepep_v1_first", kernel)
        newest = fit(kernel, rows)
        print(kernel)
        show("newest version, in-sample", rows, newest)
        tell("newest version, each EP size left out", held_out_errors(kernel, rows))
        show("first version, with the newest one's constants", first, newest)
        if second := rows_of("deepep_v2", kernel):
            show("version 2, with the newest one's constants", second, newest)
        earlier = first_normal(newest, first) if kernel == "normal" else fit(kernel, first)
        show("first version, fitted", first, earlier)
        for version, costs in (("newest", newest), ("2025-02", earlier)):
            for name, cost in costs.items():
                rates = ", ".join(f"{tier}: {rate:.4f}" for tier, rate in cost.efficiency.items())
                print(f"    {name} {version}: alpha {cost.alpha * 1e6:.1f} us, efficiency {{{rates}}}")


if __name__ == "__main__":
    main()
