"""Tables of `moesim calibrate`: the kernels of a profile with their held-out errors, and what a check found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from rich.table import Table

from moesim.calibration.check import Checked
from moesim.calibration.monotone import Falls
from moesim.calibration.selection import Selection


def operators_table(section: Mapping[str, Any]) -> Table:
    """A profile's plain data -> its kernels, how many rows they rest on, and their errors on unseen shapes. Those that
    another profile lends rest on none of its records.
    """
    table = Table(
        "kernel",
        "rows",
        "beat physics",
        "too slow",
        "other labels",
        "unseen",
        "median",
        "p90",
        "80 % interval",
        "covers",
    )
    for name, one in ((name, one) for name, one in section["operators"].items() if one["basis"] != "assumed"):
        held, (low, high) = one["heldout"], np.expm1(one["interval"])
        table.add_row(
            name, str(one["rows"]), str(one["beats_physics"]), str(one.get("too_slow", 0)), str(one["other_labels"]),
            one["held_out_by"],
            f"{held['median']:.1%}", f"{held['p90']:.1%}",
            f"{low:+.1%} to {high:+.1%}", f"{held['coverage']:.0%}",
        )  # fmt: skip
    return table


def falls_table(profile: str, found: Iterable[Falls]) -> Table:
    """Answers of each kernel that take longer than those for more work."""
    table = Table("kernel", "answers", "> 2 %", "> 30 %", "worst", "where", title=f"{profile}: slower than more work")
    for one in sorted(found, key=lambda one: -one.worst):
        table.add_row(one.kernel, str(one.answers), str(one.told), str(one.slow), f"{one.worst:.2f} x", one.where)
    return table


def selection_table(found: Iterable[Selection], penalty: str) -> Table:
    """Candidates of each kernel from coarse to fine, the chosen one marked."""
    table = Table("kernel", "rows", "knots", "pieces", "fitted", "held out", "", title=f"pieces by {penalty}")
    for one in found:
        best = one.chosen(penalty)
        for tried in one.candidates:
            score = tried.score
            errors = (f"{tried.fitted:.2%}", f"{tried.held_out:.2%}", "chosen" if tried is best else "")
            knots = f"1 / {score.fineness:g}"
            table.add_row(f"{one.op} {one.kernel}", str(one.rows), knots, f"{score.pieces:.1f}", *errors)
    return table


def check_tables(found: Checked) -> Iterator[Table]:
    """Errors by kernel, then by size band and distribution, then the worst cases."""
    how = f"held out by {found.way}" if found.way else "profile as it is"
    table = Table("kernel", "rows", "median", "p90", "all rows", "Wasserstein", title=f"{found.profile}: {how}")
    splits, worst = Table("kernel", "split", "rows", "median", "p90"), Table("kernel", "worst cases")
    for one in found.operators:
        errors, moved = one.errors, one.transport
        both = f"{errors.absolute(0.5, all_rows=True):.1%} / {errors.absolute(0.9, all_rows=True):.1%}"
        sides = f"{moved.wasserstein:.1%} ({moved.too_slow:.1%} slow, {moved.too_fast:.1%} fast)"
        table.add_row(
            one.name, str(len(one.records)), f"{errors.absolute(0.5):.1%}", f"{errors.absolute(0.9):.1%}", both, sides
        )
        for name, (rows, median, p90) in one.splits().items():
            splits.add_row(one.name, name, str(rows), f"{median:.1%}", f"{p90:.1%}")
        worst.add_row(one.name, "\n".join(one.worst()))
    yield from (table, splits, worst)
    if found.distance:
        yield _distances_table(found, *found.distance)


def _distances_table(found: Checked, name: str, scale: float) -> Table:
    """Shares of the measured mean, each kernel's."""
    table = Table(
        "kernel", *found.distances[0][1], title=f"{name} distance at scale {scale:g}, shares of the measured mean"
    )
    for kernel, values in found.distances:
        table.add_row(kernel.name, *(f"{value:.2%}" for value in values.values()))
    return table
