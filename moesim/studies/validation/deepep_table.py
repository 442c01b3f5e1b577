"""Published DeepEP tables: rows of a CSV file -> Cases with their measured seconds; what is not clear is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from moesim.errors import BadInput
from moesim.network import all_to_all
from moesim.studies.validation.deepep import Case, Situation
from moesim.studies.validation.rows import nothing_understood, number, read_rows

COLUMNS = ("kernel", "op", "ep", "value", "unit", "version", "config", "system")
ALGORITHM = {"normal": "deepep_normal", "low_latency": "deepep_low_latency"}
TOPOLOGY = {
    "H800": "hgx-h800", "H100": "dgx-h100", "SM90": "dgx-h100", "H200": "hgx-h200", "B200": "dgx-b200",
    "SM100": "dgx-b200", "GB200": "gb200-nvl72", "A100": "dgx-a100",
}  # fmt: skip
EXPERTS = 256  # of DeepSeek-V3, and of DeepEP's own tests
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
TIERS = ("nvlink", "rdma")  # of a bandwidth
KNOWN_SYSTEM = re.compile(r"NVLink\b.*|CX7\b.*|8 GPUs/node", re.IGNORECASE)
KNOWN_WORDS = re.compile(
    r"low-latency kernels|normal kernels|nvlink used where possible|pure rdma|rdma only|sms=\d+|\d+ sms", re.IGNORECASE
)


@dataclass(frozen=True)
class Row:
    """A row that was understood; `seconds` measured."""

    line: int
    kernel: str
    unit: str
    value: float
    situation: Situation
    seconds: float

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
    for line, record in read_rows(path, COLUMNS):
        try:
            row = _row(line, record)
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


def _row(line: int, record: dict[str, str]) -> Row:
    kernel = record["kernel"].lower().replace("-", "_")
    if kernel not in ALGORITHM:
        raise BadInput(f"kernel {record['kernel']!r} is none of {', '.join(ALGORITHM)}")
    if record["op"] not in ("dispatch", "combine"):
        raise BadInput(f"op {record['op']!r} is neither dispatch nor combine")
    value = number(record, "value")
    situation = Situation.of(_case(kernel, record))
    return Row(line, kernel, record["unit"], value, situation, _seconds(value, record["unit"], kernel, situation))


def _case(kernel: str, record: dict[str, str]) -> Case:
    ranks = number(record, "ep")
    config = _config(record["config"])
    experts = int(config.get("experts", EXPERTS))
    if ranks != int(ranks) or experts % int(ranks):
        raise BadInput(f"ep {record['ep']} does not divide {experts} experts")
    missing = [key for key in ("hidden", "tokens/gpu", "topk", record["op"]) if key not in config]
    if missing:
        raise BadInput(f"config says nothing of {missing[0]!r}")
    version, path = _version(kernel, record)
    return Case(
        algorithm=ALGORITHM[kernel], version=version, path=path, op=record["op"], ranks=int(ranks),
        tokens=int(config["tokens/gpu"]), top_k=int(config["topk"]),
        groups=int(config["groups"]) if "groups" in config else None, experts=experts, hidden=int(config["hidden"]),
        dtype=config[record["op"]], topology=_topology(record["system"]),
    )  # fmt: skip


def _config(text: str) -> dict[str, str]:
    """ "hidden=7168; topk=8; top-4 groups; dispatch FP8; ..." -> its figures. Raises BadInput on anything else."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        if match := re.fullmatch(r"(hidden|tokens/GPU|topk|experts)=(\d{1,7})", part, re.IGNORECASE):
            found[match[1].lower()] = match[2]
        elif match := re.fullmatch(r"top-(\d{1,4}) groups", part):
            found["groups"] = match[1]
        elif match := re.fullmatch(r"(dispatch|combine) (FP8|BF16)", part, re.IGNORECASE):
            found[match[1].lower()] = match[2].lower()
        elif not KNOWN_WORDS.fullmatch(part):
            raise BadInput(f"config {part!r} is not understood")
    return found


def _version(kernel: str, record: dict[str, str]) -> tuple[str | None, str | None]:
    """(version, path): the one that the text names, the latest known one that is not after its date, or None."""
    known = all_to_all.find(ALGORITHM[kernel]).versions
    date = re.search(r"20\d\d-\d\d", record["version"])
    earlier = [version for version in known if date and version <= date[0]]
    named = record["version"] if record["version"] in known else None
    version = earlier[-1] if earlier else known[0] if date else named
    text = f"{record['version']}; {record['config']}".lower()
    if kernel == "normal":
        return version, None
    return version, "rdma" if re.search(r"pure rdma|rdma only", text) else "nvlink" if "nvlink" in text else None


def _topology(text: str) -> str:
    first, *more = [part.strip() for part in text.split(";")]
    if first not in TOPOLOGY:
        raise BadInput(f"system {first!r} is none of {', '.join(TOPOLOGY)}")
    for part in more:
        rate = re.search(r"(\d+) ?Gb/s", part)
        if not KNOWN_SYSTEM.fullmatch(part) or (rate and rate[1] != "400"):
            raise BadInput(f"system {part!r} is not that of {TOPOLOGY[first]}")
    return TOPOLOGY[first]


def _seconds(value: float, unit: str, kernel: str, situation: Situation) -> float:
    if unit in SECONDS:
        return value * SECONDS[unit]
    if unit.startswith("GB/s"):
        tier = "messages" if kernel == "low_latency" else next((name for name in TIERS if name in unit.lower()), None)
        if tier:
            return situation.logical_bytes(tier) / (value * 1e9)
    raise BadInput(f"unit {unit!r} is none of us, ms, s, GB/s (NVLink), GB/s (RDMA)")
