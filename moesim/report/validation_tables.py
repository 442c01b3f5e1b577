"""Text of `moesim validate serving` and `training`, and the rows of any suite as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from moesim.errors import printable
from moesim.report.explain import Document

WAYS: Final = {
    "": "engine constants",
    "_left_out": "left one out",
    "_nothing_fitted": "no constant fitted",
}  # of serving


def serving_text(document: Document) -> Group:
    """The metrics of ok rows, each way that they were played; errors slice by slice, and what was refused."""
    found = document["metrics"]
    metrics = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    metrics.add_column("rows whose flag is ok")
    for head in WAYS.values():
        metrics.add_column(head, justify="right")
    for name in found:
        if not name.endswith(tuple(way for way in WAYS if way)):
            metrics.add_row(name, *(_told(name, found.get(name + way)) for way in WAYS))
    refused = [Text(printable(f"warning: {text}"), style="yellow") for text in document["warnings"]]
    return Group(metrics, Text(), _slices(document["breakdown"]), *_runs(document["provenance"]["runs"]), *refused)


def _runs(found: Any) -> Iterator[Table | Text]:
    """Distributions of runs that were measured request by request."""
    if not found:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, head in enumerate(("run", "", "", "measured, ms", "predicted, ms", "ratio")):
        table.add_column(head, justify="left" if number < 3 else "right")
    for name, run in found.items():
        for metric, told in run.items():
            for what, (measured, predicted) in told.items():
                cells = (f"{measured:.1f}", f"{predicted:.1f}", f"{predicted / measured:.2f}")
                table.add_row(name, metric, what, *cells)
    yield Text()
    yield table


def _told(name: str, metric: Any) -> str:
    if metric is None:
        return ""
    plain = name.endswith(("correlation", "ratio"))
    return f"{metric['value']:.3f}" if plain else f"{metric['value']:.1%}"


SHOWN: Final = ("what", "of", "model", "case")  # of the keys of a training point


def training_text(document: Document) -> Group:
    """Every point beside its measurement, the metrics, and how far each system or model is off on average."""
    points = _table(*SHOWN, "unit", "measured", "predicted", "error", left=len(SHOWN))
    for point in document["provenance"]["rows"]:
        figures = [f"{point[name]:.4g}" for name in ("measured", "predicted")]
        points.add_row(*(point[name] for name in SHOWN), point["unit"], *figures, f"{point['error']:+.1%}")
    metrics = _table("metric", "")
    for name, metric in document["metrics"].items():
        if name.startswith(("time", "memory", "throughput", "answered")):
            metrics.add_row(name, f"{metric['value']:.3f}")
    bias = _table("time or memory, predicted over measured", "", "points", "ratio", left=2)
    for what, of in document["breakdown"].items():
        for name, found in of.items():
            if isinstance(found, dict):
                bias.add_row(what, name, str(found["points"]), f"{found['geometric_mean_ratio']:.2f}")
    refused = [Text(printable(f"warning: {text}"), style="yellow") for text in document["warnings"]]
    return Group(points, Text(), metrics, Text(), bias, *refused)


def _table(*heads: str, left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < left else "right")
    return table


def _slices(breakdown: Any) -> Table:
    """Every value of every key: rows, and mean, median and bias of TPOT and TTFT; all flags in all but the first."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, head in enumerate(("slice", "", "rows", "TPOT", "median", "ratio", "TTFT", "median", "ratio")):
        table.add_column(head, justify="left" if number < 2 else "right")
    for key, values in breakdown.items():
        for value, found in values.items():
            cells = [
                text
                for metric in ("tpot", "ttft")
                for text in (
                    f"{found[metric]['mean_abs_error']:.1%}", f"{found[metric]['median_abs_error']:.1%}",
                    f"{found[metric]['geometric_mean_ratio']:.2f}",
                )
            ]  # fmt: skip
            table.add_row(key, str(value), str(found["tpot"]["points"]), *cells)
    return table


def rows_csv(document: Document) -> str:
    """A row a point, with its keys, what was measured, what is predicted and the error."""
    rows = document["provenance"]["rows"]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
