"""`moesim gallery`."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from moesim.cli.options import OptionalReport, json_option, print_json, text_stream


@click.command(cls=OptionalReport)
@click.argument("words", metavar="[ROW]...", nargs=-1)
@click.option("--show", is_flag=True, help="Print the rows' files; nothing is run.")
@click.option(
    "--report",
    metavar="[=FILE]",
    help="Write a page with every row, or its table where FILE is .md.  [default: gallery.html]",
)
@click.option(
    "--within", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
    help="A row that takes more CPU time than that, once compiled, fails; what all took is told.",
)  # fmt: skip
@json_option
def gallery(words: tuple[str, ...], show: bool, report: str | None, within: float | None, as_json: bool) -> None:
    """Run published mechanisms, each held by what its paper says it does. ROW: a number, system, title or feature.

    Exits with 4 where an expectation fails. Rows that wait for a feature say which.
    """
    from moesim import atomic
    from moesim.errors import TargetMissed
    from moesim.report import gallery_tables, tables
    from moesim.studies.gallery import document, find_rows, timely

    if show and (as_json or report is not None or within is not None):
        raise click.UsageError("--show runs nothing that --json, --report or --within could tell of")
    found = find_rows(words)
    if show:
        print("\n---\n".join(Path(row.document.source).read_text(encoding="utf-8").rstrip() for row in found))
        return
    verdicts = [timely(row, _command, within) for row in found]
    tables.show(gallery_tables.table(verdicts), text_stream(as_json))
    told = [*gallery_tables.words(verdicts), *(gallery_tables.spent(verdicts) if within is not None else ())]
    print("\n".join(told), file=text_stream(as_json))
    if report is not None:
        path = Path(report or "gallery.html")
        written = gallery_tables.markdown if path.suffix == ".md" else gallery_tables.page
        atomic.write(path, written(verdicts))
        print(path, file=text_stream(as_json))
    if as_json:
        print_json(document(verdicts, timed=within is not None))
    failing = [one.row.file.seed for one in verdicts if one.state == "fails"]
    if failing:
        raise TargetMissed(f"{len(failing)} of {len(verdicts)} rows fail: {', '.join(failing)}", where="gallery")


def _command(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a verb in this process -> the document that it prints, {} where it prints none."""
    from moesim.cli.main import cli

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        cli.main(args=list(arguments), prog_name="moesim", standalone_mode=False)
    text = out.getvalue()
    return json.loads(text) if text.lstrip().startswith("{") else {}
