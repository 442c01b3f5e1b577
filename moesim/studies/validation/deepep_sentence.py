"""A row of a DeepEP table that says its shape in a sentence, as the library's own README does -> one with columns.

"hidden=7168; tokens/GPU=128; topk=8; top-4 groups; dispatch FP8; combine BF16; SMs=12" and "H800; NVLink ~160 GB/s
max; CX7 IB 400Gb/s; 8 GPUs/node". What is not understood is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from moesim.errors import BadInput
from moesim.network import all_to_all

KEY = "config"
COLUMNS = ("kernel", "op", "ep", "value", "unit", "version", KEY, "system")
TOPOLOGY = {
    "H800": "hgx-h800", "H100": "dgx-h100", "SM90": "dgx-h100", "H200": "hgx-h200", "B200": "dgx-b200",
    "SM100": "dgx-b200", "GB200": "gb200-nvl72", "A100": "dgx-a100",
}  # fmt: skip
EXPERTS = "256"  # of DeepSeek-V3, and of DeepEP's own tests
KNOWN_SYSTEM = re.compile(r"NVLink\b.*|CX7\b.*|8 GPUs/node", re.IGNORECASE)
KNOWN_WORDS = re.compile(r"low-latency kernels|normal kernels|nvlink used where possible|pure rdma|rdma only", re.I)
RELEASE = re.compile(r"v?\d\b.*|20\d\d-\d\d.*", re.IGNORECASE)


def in_columns(record: Mapping[str, str]) -> dict[str, str]:
    """The row with a column for each figure. Raises BadInput."""
    found = _config(record[KEY])
    if record["op"] not in ("dispatch", "combine"):
        raise BadInput(f"op {record['op']!r} is neither dispatch nor combine")
    missing = [key for key in ("hidden", "tokens/gpu", "topk", record["op"]) if key not in found]
    if missing:
        raise BadInput(f"config says nothing of {missing[0]!r}")
    version, path = _version(record)
    return {
        **record, "library": record.get("library") or "deepep", "version": version, "path": path,
        "hidden": found["hidden"], "tokens_per_rank": found["tokens/gpu"], "topk": found["topk"],
        "experts": found.get("experts", EXPERTS), "groups": found.get("groups", ""), "sms": found.get("sms", ""),
        "dtype": found[record["op"]], "system": _topology(record["system"]),
    }  # fmt: skip


def _config(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        if match := re.fullmatch(r"(hidden|tokens/GPU|topk|experts|sms)=(\d{1,7})", part, re.IGNORECASE):
            found[match[1].lower()] = match[2]
        elif match := re.fullmatch(r"top-(\d{1,4}) groups", part):
            found["groups"] = match[1]
        elif match := re.fullmatch(r"(\d{1,4}) SMs", part, re.IGNORECASE):
            found["sms"] = match[1]
        elif match := re.fullmatch(r"(dispatch|combine) (FP8|BF16)", part, re.IGNORECASE):
            found[match[1].lower()] = match[2].lower()
        elif not KNOWN_WORDS.fullmatch(part):
            raise BadInput(f"config {part!r} is not understood")
    return found


def _version(record: Mapping[str, str]) -> tuple[str, str]:
    """(version, path): the one that the text names, the latest known one that is not after its date, or "" for the
    usual ones. Raises BadInput where it names no release, but another library perhaps.
    """
    named, normal = record["version"], record["kernel"].lower() == "normal"
    if named and not RELEASE.fullmatch(named):
        raise BadInput(f"version {named!r} is no release of DeepEP", way_out="V1 2025-04-22, or a column library")
    known = all_to_all.find("deepep_normal" if normal else "deepep_low_latency").versions
    date = re.search(r"20\d\d-\d\d", named)
    earlier = [version for version in known if date and version <= date[0]]
    version = earlier[-1] if earlier else known[0] if date else named if named in known else ""
    text = f"{named}; {record[KEY]}".lower()
    if normal:
        return version, ""
    return version, "rdma" if re.search(r"pure rdma|rdma only", text) else "nvlink" if "nvlink" in text else ""


def _topology(text: str) -> str:
    first, *more = [part.strip() for part in text.split(";")]
    if first not in TOPOLOGY:
        raise BadInput(f"system {first!r} is none of {', '.join(TOPOLOGY)}")
    for part in more:
        rate = re.search(r"(\d+) ?Gb/s", part)
        if not KNOWN_SYSTEM.fullmatch(part) or (rate and rate[1] != "400"):
            raise BadInput(f"system {part!r} is not that of {TOPOLOGY[first]}")
    return TOPOLOGY[first]
