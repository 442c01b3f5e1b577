"""Published DeepEP tables: rows of a CSV file -> Cases with their measured seconds; what is not clear is refused.

Every figure has a column. Tables that say them in one sentence (`config`) are put into columns first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moesim.errors import BadInput, unknown_name
from moesim.hardware import known_topologies
from moesim.network import all_to_all
from moesim.studies.validation import deepep_sentence
from moesim.studies.validation.deepep import Case, Situation
from moesim.studies.validation.rows import nothing_understood, number, read_rows, whole

COLUMNS = (
    "library", "kernel", "op", "ep", "hidden", "tokens_per_rank", "topk", "experts", "dtype", "system", "value", "unit",
)  # fmt: skip
REST = ("version", "groups", "path", "sms")  # that may be empty: the usual version and way, no limit, not said
LIBRARY = "deepep"
ALGORITHM = {"normal": "deepep_normal", "low_latency": "deepep_low_latency"}
DTYPES = ("fp8", "bf16")
MOST, MOST_SMS = 10_000_000, 1000
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
TIERS = ("nvlink", "rdma")  # of a bandwidth


@dataclass(frozen=True)
class Row:
    """A row that was understood; `seconds` measured; `sms` that the kernel had, "" where the table does not say."""

    line: int
    kernel: str
    unit: str
    value: float
    situation: Situation
    seconds: float
    sms: str = ""

    @property
    def in_unit(self) -> str:
        """ "us", "ms" or "s", or "GB/s" for a logical bandwidth."""
        return self.unit if self.unit in SECONDS else "GB/s"

    def to_unit(self, seconds: float) -> float:
        """Seconds in the unit of the table."""
        return self.value * (seconds / self.seconds if self.unit in SECONDS else self.seconds / seconds)


@dataclass(frozen=True)
class Table:
    """rows: one per point; refused: a sentence per row that was not understood; repeated: rows left out, because the
    same point stands there in seconds too.
    """

    rows: tuple[Row, ...]
    refused: tuple[str, ...]
    repeated: int


def read_table(path: Path) -> Table:
    """Raises BadInput where the file is no CSV with these columns, or where no row is understood."""
    refused: list[str] = []
    found: dict[Case, list[Row]] = {}
    for line, record in read_rows(path, COLUMNS, deepep_sentence.COLUMNS, rest=REST):
        try:
            row = _row(line, deepep_sentence.in_columns(record) if deepep_sentence.KEY in record else record)
            found.setdefault(row.situation.case, []).append(row)
        except BadInput as error:
            refused.append(f"{path}:{line}: {error}")
    if not found:
        raise nothing_understood(path, refused)
    kept = [row for rows in found.values() for row in _each_once(rows)]
    return Table(tuple(kept), tuple(refused), sum(map(len, found.values())) - len(kept))


def _each_once(rows: list[Row]) -> list[Row]:
    timed = [row for row in rows if row.unit in SECONDS]
    return timed or rows


def _row(line: int, record: Mapping[str, str]) -> Row:
    if record["library"].lower() != LIBRARY:
        raise BadInput(f"library {record['library']!r} is not {LIBRARY}, whose kernels alone are modelled here")
    kernel = record["kernel"].lower().replace("-", "_")
    if kernel not in ALGORITHM:
        raise BadInput(f"kernel {record['kernel']!r} is none of {', '.join(ALGORITHM)}")
    if record["op"] not in ("dispatch", "combine"):
        raise BadInput(f"op {record['op']!r} is neither dispatch nor combine")
    value, situation = number(record, "value"), Situation.of(_case(ALGORITHM[kernel], record))
    seconds = _seconds(value, record["unit"], kernel, situation)
    sms = str(whole(record, "sms", MOST_SMS)) if record["sms"] else ""
    return Row(line, kernel, record["unit"], value, situation, seconds, sms)


def _case(algorithm: str, record: Mapping[str, str]) -> Case:
    ranks, experts = whole(record, "ep"), whole(record, "experts", MOST)
    if experts % ranks:
        raise BadInput(f"ep {record['ep']} does not divide {experts} experts")
    if record["dtype"] not in DTYPES:
        raise BadInput(f"dtype {record['dtype']!r} is none of {', '.join(DTYPES)}")
    if record["system"] not in known_topologies():
        raise unknown_name("system", record["system"], known_topologies())
    known = all_to_all.find(algorithm)
    return Case(
        algorithm=algorithm, version=_known(record, "version", known.versions),
        path=_known(record, "path", getattr(known, "paths", ())), op=record["op"], ranks=ranks,
        tokens=whole(record, "tokens_per_rank", MOST), top_k=whole(record, "topk", experts + 1),
        groups=whole(record, "groups", MOST) if record["groups"] else None, experts=experts,
        hidden=whole(record, "hidden", MOST), dtype=record["dtype"], topology=record["system"],
    )  # fmt: skip


def _known(record: Mapping[str, str], column: str, known: Sequence[str]) -> str | None:
    """One of `known`, None where the cell is empty. Raises BadInput."""
    if record[column] and record[column] not in known:
        raise unknown_name(column, record[column], known)
    return record[column] or None


def _seconds(value: float, unit: str, kernel: str, situation: Situation) -> float:
    if unit in SECONDS:
        return value * SECONDS[unit]
    if unit.startswith("GB/s"):
        tier = "messages" if kernel == "low_latency" else next((name for name in TIERS if name in unit.lower()), None)
        if tier:
            return situation.logical_bytes(tier) / (value * 1e9)
    raise BadInput(f"unit {unit!r} is none of us, ms, s, GB/s (NVLink), GB/s (RDMA)")
