"""Requests of a served run as they are stored: what other tools' files are made of."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, Final

from moesim.errors import BadInput
from moesim.report.stored import AGAIN, REQUESTS, StoredRun, whole

WHOLE: Final = ("request", "input", "output", "replica", "preempted", "reused", "counted", "session", "turn")
FINISHED: Final = "finished"


@dataclass(frozen=True)
class Request:
    """One row of requests.csv. input, output tokens; times in s, None where it did not come so far; error: how it
    ended, "" where it has its answer; session, turn: of a talk of several turns, else its own number and 0.
    """

    number: int
    session: int
    turn: int
    input: int
    output: int
    sent: float
    first: float | None
    ended: float | None
    error: str

    @property
    def ttft(self) -> float:
        """Seconds to the first token; 0 where there is none."""
        return 0.0 if self.first is None or self.error else self.first - self.sent

    @property
    def latency(self) -> float:
        """Seconds to the last token; 0 where there is none."""
        return 0.0 if self.ended is None or self.error else self.ended - self.sent

    @property
    def tpot(self) -> float:
        """Seconds a token after the first; 0 where there is only one."""
        return (self.latency - self.ttft) / (self.output - 1) if self.output > 1 else 0.0


def requests_of(run: StoredRun) -> list[Request]:
    """Those that metrics count, and those that were sent and have no answer; the warm-up's are left out, and those of
    a session that were never sent. Raises BadInput.
    """
    rows = [row for row in _rows(run) if row["sent_s"]]
    return [_request(row) for row in rows if row["counted"] == "1" or row["state"] != FINISHED]


def parquet(run: StoredRun) -> bytes:
    """requests.csv as it is, whole numbers as such, times as float64, empty cells as null. Raises BadInput."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = _rows(run)
    names = list(rows[0]) if rows else []
    columns = {name: pa.array([_cell(name, row[name]) for row in rows], _kind(pa, name)) for name in names}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _rows(run: StoredRun) -> list[dict[str, str]]:
    path = run.folder / REQUESTS
    if not path.is_file():
        raise BadInput("is not there", where=path, way_out=AGAIN)
    return list(csv.DictReader(whole(run.folder, REQUESTS).decode().splitlines()))


def _request(row: dict[str, str]) -> Request:
    first, ended = _seconds(row["first_token_s"]), _seconds(row["ended_s"])
    return Request(
        int(row["request"]), int(row.get("session", row["request"])), int(row.get("turn", 0)), int(row["input"]),
        int(row["output"]), float(row["sent_s"]), first, ended, "" if row["state"] == FINISHED else row["state"],
    )  # fmt: skip


def _seconds(text: str) -> float | None:
    return float(text) if text else None


def _kind(pa: Any, name: str) -> Any:
    """The type of a column, whatever is in it."""
    if name in WHOLE:
        return pa.int64()
    return pa.float64() if name.endswith("_s") else pa.string()


def _cell(name: str, text: str) -> Any:
    if name in WHOLE:
        return int(text)
    return _seconds(text) if name.endswith("_s") else text
