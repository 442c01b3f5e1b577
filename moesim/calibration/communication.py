"""The communication constants of a profile: those of all systems, with NCCL's rate and start-ups from its records."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np

from moesim.calibration.demands import KIND
from moesim.calibration.fit_operator import Peaks
from moesim.calibration.heldout import Errors, Prepared, held_out, pooled, prepare, splits
from moesim.calibration.kernels import name_of
from moesim.calibration.records import Records
from moesim.calibration.systems import System
from moesim.hardware import load_cluster

WAYS: Final = {"collective": "world", "exchange": "shape"}
LARGEST: Final = 8  # ranks that most systems were measured with
ROUNDS: Final = 1e7  # a second at most, of peers that follow each other
POINTS: Final = 9  # of a start-up table
ENGINES: Final = ("sglang", "trtllm", "vllm")
RINGS: Final = ("all_gather", "all_reduce", "reduce_scatter")  # an all-to-all starts up by its peers, see per_message


def section(records: Records, system: System) -> dict[str, Any]:
    """The `communication` section of a profile."""
    plain: dict[str, Any] = copy.deepcopy(system.raw["communication"])  # type: ignore[arg-type]
    nccl = records.of(backend="nccl", dtype="bf16").usable
    largest = nccl.of(op="all_to_all")
    if not len(largest):
        return plain
    nominal = _nominal(system)
    world = int(largest["world"].max())
    full = largest.where(largest["world"] == world)
    sent, seconds = full["bytes"] * (world - 1) / world, full["seconds"]
    reached = float(sent[sent.argmax()] / seconds[sent.argmax()])
    fraction = round(min(reached / nominal, 1.0), 3)
    plain["nccl"]["efficiency"]["nvlink"] = fraction
    plain["nccl"]["steps"] = _steps(nccl, fraction * nominal)
    plain["nccl"]["source"] = (
        f"NCCL {full['version'][0]}: {reached / 1e9:.0f} of {nominal / 1e9:.0f} GB/s in the largest all-to-all on "
        f"{world} GPUs, and what smaller ones take beyond that ({full['provenance'][0]}); beyond one node as DeepEP"
    )
    return plain


def held_out_errors(parts: list[Records], system: System) -> dict[str, Errors]:
    """Of collectives on an unseen world size (of 2, 4 and 8), and of DeepEP on an unseen shape; by operator's name, and
    by group: collectives, among them those of libraries (NCCL) and the engines' own all-reduces, and deepep.
    """
    found: dict[str, Errors] = {}
    groups: dict[str, list[Errors]] = {}
    for part in parts:
        kind = KIND.get(str(part["op"][0]))
        part = within_reach(part)
        if kind not in WAYS or not len(part):
            continue
        prepared = prepare_transfer(part, system)
        if len(splits(prepared, WAYS[kind])) > 1 + (kind == "collective"):
            judged = found[name_of(part)] = held_out(prepared, WAYS[kind])
            for group in ("collectives", _maker(part)) if kind == "collective" else ("deepep",):
                groups.setdefault(group, []).append(judged)
    return found | {group: pooled(errors) for group, errors in groups.items()}


def within_reach(records: Records) -> Records:
    """Of a collective's records those of up to LARGEST ranks; all of another operator's."""
    collective = KIND.get(str(records["op"][0])) == "collective"
    return records.where(records["world"] <= LARGEST) if collective else records


def prepare_transfer(records: Records, system: System) -> Prepared:
    """Records of one collective, or of one exchange."""
    return prepare(records, Peaks(ROUNDS, 2 * _nominal(system)))


def _maker(records: Records) -> str:
    """Who made a collective: an engine, or a library."""
    own = str(records["backend"][0]) in ENGINES and str(records["kernel"][0]) != "NCCL"
    return "collectives_of_engines" if own else "collectives_of_libraries"


def _nominal(system: System) -> float:
    """B/s of a GPU's own link inside its node, one way."""
    cluster = load_cluster(system.facts.topology)
    return float(np.max(cluster.link_capacity))


def _steps(nccl: Records, rate: float) -> list[dict[str, Any]]:
    """Start-ups by bytes sent, per collective and number of ranks."""
    found = []
    for op in RINGS:
        part = nccl.of(op=op)
        for world in np.unique(part["world"]):
            rows = part.where(part["world"] == world)
            twice = 2 if op == "all_reduce" else 1
            sent = rows["bytes"] * (world - 1) // world * twice
            sizes = np.unique(sent)  # each rank has a record of its own
            sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, POINTS).astype(int))]
            seconds = np.array([np.median(rows["seconds"][sent == size]) for size in sizes])
            alpha = np.maximum(seconds - sizes / rate, 0.0)
            found.append({
                "op": op, "ranks": int(world), "bytes": [f"{b} B" for b in sizes],
                "alpha": [f"{a * 1e6:.4g} us" for a in alpha],
            })  # fmt: skip
    return found
