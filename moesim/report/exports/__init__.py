"""What a stored run is written as for other tools: a file here and a line in FORMATS each.

A format is a function of a stored run that gives the file's bytes, or those of each file of a folder; `kinds` are the
runs that it can be made of, by their provenance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from moesim.errors import BadInput, pick
from moesim.report.exports import aiperf, chakra, flows, requests, vllm
from moesim.report.stored import StoredRun

STEP, SERVE = "step", "serve"


class Format(NamedTuple):
    """about: in a line; kind: of runs that it can be made of; made: the file's bytes, or name -> bytes of a folder."""

    about: str
    kind: str
    made: Callable[[StoredRun], bytes | Mapping[str, bytes]]


FORMATS: Final = {
    "vllm": Format("JSON as `vllm bench serve --save-detailed` writes it, without gaps", SERVE, vllm.made),
    "aiperf": Format("JSON lines as AIPerf's profile_export.jsonl, a request each", SERVE, aiperf.made),
    "parquet": Format("a row a request, as requests.csv", SERVE, requests.parquet),
    "flows": Format("CSV for packet simulators: when which GPU sends how much to whom", STEP, flows.made),
    "chakra": Format("a folder of Chakra execution traces, chakra.RANK.et, for ASTRA-sim", STEP, chakra.made),
}


def exported(run: StoredRun, name: str) -> bytes | Mapping[str, bytes]:
    """Bytes of a format; name -> bytes of its files. Raises BadInput for an unknown one, or a run of another kind."""
    chosen, kind = pick("format", name, FORMATS, where="--as"), run.document["provenance"].get("kind", STEP)
    if kind != chosen.kind:
        able = ", ".join(one for one, entry in FORMATS.items() if entry.kind == kind) or "none: its --json"
        raise BadInput(f"{name} is made of a run of mode: {chosen.kind}, this one is of mode: {kind}", where="--as",
                       way_out=f"for it there is {able}")  # fmt: skip
    return chosen.made(run)
