"""Text of a sweep for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from moesim.report.tables import plain, warnings_of
from moesim.studies.sweeping import Sweep
from moesim.studies.sweeping.axes import flow
from moesim.studies.sweeping.store import Kept
from moesim.studies.sweeping.sweep import STATES, value_of

MOST_ROWS: Final = 40


def sweep_text(found: Sweep, metrics: Sequence[str], *, named: bool) -> Group:
    """A row a point with the metrics asked for; named: by the user, so that an unknown one is refused."""
    known = {name for _, one in found.done[:MOST_ROWS] for name in _names(one)}
    if named:
        for metric in metrics:
            found.values(metric)
    shown = [name for name in metrics if name in known]
    table = plain(*found.plan.keys, "seed", *shown, "state")
    for point, one in list(zip(found.points, found.kept, strict=True))[:MOST_ROWS]:
        values = [value_of(one, name) for name in shown]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        table.add_row(*map(flow, point.values), str(point.seed), *cells, STATES.get(one.code, "?"))
    more = len(found.points) - MOST_ROWS
    parts: list[RenderableType] = [Text(found.title(), style="bold"), table]
    parts += [Text(f"... and {more} more in {found.folder}/results.csv")] if more > 0 else []
    parts.append(Text(f"{found.ran} run now; stored in {found.folder}"))
    return Group(*parts, *warnings_of({"warnings": found.said_with()}))


def _names(one: Kept) -> list[str]:
    return [*one.record["metrics"], *one.record["breakdown"]]
