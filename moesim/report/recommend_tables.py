"""Text of a recommendation for the terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from moesim.report.tables import plain, warnings_of
from moesim.studies.recommending import Recommendation, Row

BESIDE: Final = ("p99_ttft_ms", "p99_tpot_ms", "cost_per_million_output_tokens", "step_time_s", "mfu_megatron")
MOST_ROWS: Final = 12


def recommend_text(found: Recommendation) -> Group:
    """The front, a row a deployment; how to start them; what is to be said."""
    front = found.front[:MOST_ROWS]
    beside = [name for name in BESIDE if all(name in row.metrics for row in front)]
    table = plain("", "deployment", "GPUs", *front[0].found, *beside)
    for row in front:
        values = [*row.found.values(), *(float(row.metrics[name]["value"]) for name in beside)]
        table.add_row(str(row.front), row.candidate.label, str(row.candidate.gpus), *(f"{v:.5g}" for v in values))
    table.columns[1].justify = "left"
    said: list[RenderableType] = [Text(found.title(), style="bold"), table]
    more = len(found.front) - len(front)
    said += [Text(f"... and {more} more, see --json")] if more else []
    volume = f"hypervolume {found.hypervolume:.4g} of the box that the simulated ones span; "
    told = found.hypervolume or found.share is not None  # 0: the front is the box's corners
    said.append(Text(f"{volume if told else ''}stored in {found.folder}"))
    for row in front:
        said += _start(row)
    return Group(*said, *warnings_of({"warnings": found.said_with()}))


def _start(row: Row) -> list[RenderableType]:
    head = Text(f"{row.front}. moesim run {row.file}", style="bold")
    return [head, *(Text(f"   {engine}: {line}") for engine, line in row.flags.items())]
