"""Text of a sweep for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moesim.report.tables import plain, warnings_of
from moesim.studies.searching import Search
from moesim.studies.sensitivity import METHODS, Sensitivity
from moesim.studies.sweeping import Sweep
from moesim.studies.sweeping.axes import flow
from moesim.studies.sweeping.store import Kept
from moesim.studies.sweeping.sweep import STATES, Front, value_of

MOST_ROWS: Final = 40


def sweep_text(found: Sweep, metrics: Sequence[str], *, named: bool, front: Front | None = None) -> Group:
    """A row a point with the metrics asked for; named: by the user, so that an unknown one is refused."""
    known = {name for _, one in found.done[:MOST_ROWS] for name in _names(one)}
    for metric in metrics if named else ():
        found.values(metric)
    shown = [name for name in metrics if named or name in known]
    table = plain(*found.plan.keys, "seed", *shown, "state")
    for point, one in list(zip(found.points, found.kept, strict=True))[:MOST_ROWS]:
        values = [value_of(one, name) for name in shown]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        table.add_row(*map(flow, point.values), str(point.seed), *cells, STATES.get(one.code, "?"))
    more = len(found.points) - MOST_ROWS
    parts: list[RenderableType] = [Text(found.title(), style="bold"), table]
    parts += [Text(f"... and {more} more in {found.folder}/results.csv")] if more > 0 else []
    parts += [] if front is None else [front_table(found, front), front_line(front)]
    parts.append(Text(f"{found.ran} run now; stored in {found.folder}"))
    return Group(*parts, *warnings_of({"warnings": found.said_with()}))


def search_text(found: Search) -> Group:
    """The front, and how far the search went."""
    played, said = found.sweep, Text(found.said())
    return Group(
        Text(played.title(), style="bold"), front_table(played, found.front), front_line(found.front), said,
        Text(f"stored in {played.folder}"), *warnings_of({"warnings": played.said_with()}),
    )  # fmt: skip


def front_line(front: Front) -> Text:
    """What it is a front of, and how good it is as a whole."""
    ways = ", ".join(f"{goal.metric} {'high' if goal.sign > 0 else 'low'}" for goal in front.goals)
    return Text(f"front of {ways}: hypervolume {front.hypervolume:.4g}, R2 {front.r2:.4g}", style="bold")


def front_table(found: Sweep, front: Front) -> Table:
    """A row a point that no other beats."""
    table = plain(*found.plan.keys, "seed", *(goal.metric for goal in front.goals))
    for row in front.points:
        point, values = found.points[row], [value_of(found.kept[row], goal.metric) for goal in front.goals]
        table.add_row(*map(flow, point.values), str(point.seed), *(f"{value:.6g}" for value in values))
    return table


def sensitivity_text(found: Sensitivity) -> Group:
    """A row an input, the one that matters most first, then the verdict."""
    table = plain("input", *found.indices)
    for row in found.rows():
        table.add_row(str(row["name"]), *(f"{row[name]:.4g}" for name in found.indices))
    said = Text(found.title(), style="bold")
    runs = Text(f"{found.method}, {len(found.values)} runs ({found.ran} run now; stored in {found.folder})")
    return Group(table, Text(METHODS[found.method].summary), said, runs, *warnings_of({"warnings": found.said_with()}))


def _names(one: Kept) -> list[str]:
    return [*one.record["metrics"], *one.record["breakdown"]]
