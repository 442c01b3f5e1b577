"""The gallery as a table, as sentences, as Markdown, and as a page with a picture of each row."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from moesim.studies.gallery import Verdict

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:14px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "section{border-top:1px solid #8888}"
    ".bar{background:#4477aa;height:1em;display:inline-block;vertical-align:middle;margin-right:.5em;"
    "width:calc(var(--share)*min(300px,40vw))}"
    "table{margin:.6em 0}td:last-child{white-space:nowrap}nav a{margin-right:.7em;display:inline-block}"
    "nav a.works{color:inherit}"
    "caption{text-align:left}td{padding:0 .8em 0 0}pre{overflow-x:auto}.fails{color:#c33}.needs{color:#888}"
)


def table(verdicts: Sequence[Verdict]) -> Table:
    """row, system, state, effect; a row that waits says for what."""
    found = Table("row", "system", "state", "effect", box=None, pad_edge=False)
    for one in verdicts:
        found.add_row(*_row(one))
    return found


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The same for docs/GALLERY.md."""
    head = "# The gallery\n\nWhat `moesim gallery --report=docs/GALLERY.md` printed.\n\n"
    lines = [("row", "system", "state", "effect"), ("---",) * 4, *map(_row, verdicts)]
    rows = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return f"{head}{rows}\n{words(verdicts)[-1]}\n"


def _row(one: Verdict) -> tuple[str, str, str, str]:
    file = one.row.file
    return file.seed, file.system, _state(one), file.title


def _state(one: Verdict) -> str:
    needs = one.row.file.needs
    return f"needs {' '.join(needs)}" if needs else one.state


def words(verdicts: Sequence[Verdict]) -> list[str]:
    """Numbers of a few rows, published figures, failures, and the counts."""
    lines = [f"{one.row.file.seed}: {one.seen}" for one in verdicts if one.seen and len(verdicts) <= 3]
    for one in verdicts:
        number = one.row.file.seed
        lines += [f"{number}: {text}" for text in _published(one)]
        lines += [f"{number} fails: {text}" for text in one.failures]
    states: list[str] = [one.state for one in verdicts]
    counts = ", ".join(
        f"{states.count(state)} {word}" for state, word in (("works", "work"), ("fails", "fail"), ("needs", "wait"))
    )
    return [*lines, f"{len(verdicts)} rows: {counts}"]


def spent(verdicts: Sequence[Verdict]) -> list[str]:
    """CPU seconds of all rows, and of those that take longest."""
    slowest = sorted(verdicts, key=lambda one: -one.cpu_s)[:3]
    most = ", ".join(f"{one.row.file.seed} {one.cpu_s:.1f} s" for one in slowest)
    return [f"{sum(one.cpu_s for one in verdicts):.0f} s of CPU time; most: {most}"]


def _published(one: Verdict) -> Iterator[str]:
    for said, (quantity, predicted, published) in zip(one.row.file.published, one.published, strict=False):
        where = ", ".join(text for text in (said.case, said.source, said.confidence) if text)
        yield f"{quantity} = {predicted:.4g} predicted, {published:.4g} published ({where})"


def page(verdicts: Sequence[Verdict]) -> str:
    """A self-contained HTML page: of each row what it shows, its numbers as bars, and its file."""
    body = "\n".join(_section(one) for one in verdicts)
    last = html.escape(words(verdicts)[-1])
    rows = "".join(f'<a class={one.state} href="#{one.row.file.seed}">{one.row.file.seed}</a>' for one in verdicts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>moesim gallery</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<h1>moesim gallery</h1><p>{last}</p><nav>{rows}</nav>{body}</html>\n"
    )


def _section(one: Verdict) -> str:
    file = one.row.file
    state = _state(one)
    notes = [*_published(one), *one.failures, *(f"not simulated: {name}" for name in file.not_simulated)]
    said = "".join(f"<p>{html.escape(text)}</p>" for text in (file.mechanism, *notes) if text)
    source = html.escape(Path(one.row.document.source).read_text(encoding="utf-8"))
    return (
        f"<section id={file.seed}><h2>{file.seed} {html.escape(file.system)}: "
        f"<span class={one.state}>{html.escape(state)}</span></h2>"
        f"<p><b>{html.escape(file.title)}</b></p>{said}{''.join(_pictures(one))}"
        f"<details><summary>file</summary><pre>{source}</pre></details></section>"
    )


def _pictures(one: Verdict) -> Iterator[str]:
    """A block of bars for each metric that an expectation reads, one bar a side."""
    read = {name.split(".", 1)[1] for said in one.row.expressions("expect") for name in said.names}
    for metric in sorted(read):
        values = {side: one.values.get(f"{side}.{metric}") for side in one.row.sides}
        known = {side: value for side, value in values.items() if value is not None}
        most = max((abs(value) for value in known.values()), default=0.0) or 1.0
        bars = "".join(
            f'<tr><td>{html.escape(side)}<td><span class=bar style="--share:{abs(value) / most:.3f}"></span>{value:.4g}'
            for side, value in known.items()
        )
        yield f"<table><caption>{html.escape(metric)}</caption>{bars}</table>"
