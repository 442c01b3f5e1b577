"""`moesim validate collectives`: NCCL's collectives and DeepEP's kernels on other systems, against published figures.

Bus bandwidth is nccl-tests': 2 S (n - 1) / (n t) of an all-reduce, S (n - 1) / (n t) of the others, S the whole buffer
of a rank. Logical bandwidth is DeepEP's: a copy per (token, node) between nodes, per (token, device) inside one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from moesim import shipped
from moesim.costs import CommunicationCost, communication_of, load_costs
from moesim.costs.profile_file import known_profiles, read_section
from moesim.errors import BadInput, unknown_name
from moesim.hardware import Cluster, load_cluster
from moesim.network import Fabric, Flows, Group, groups
from moesim.network.rails import KERNEL, RINGS, algorithms
from moesim.studies.validation.deepep import Case, Situation
from moesim.studies.validation.rows import nothing_understood, number, read_rows, whole
from moesim.studies.validation.systems import topology_of
from moesim.studies.validation.validation import Point, Validation

DATA: Final = ("workloads", "validation", "collectives_public.csv")
COLUMNS: Final = ("system", "nodes", "gpus", "op", "algorithm", "bytes", "tokens", "value", "unit", "note", "source")
DEEPEP: Final = ("deepep_low_latency", "deepep_normal_dispatch", "deepep_normal_combine")
RATES: Final = ("busbw GB/s", "logical GB/s")
UNITS: Final = (*RATES, "us", "ms")
HIDDEN, TOP_K, EXPERTS = 7168, 8, 256  # of DeepSeek-V3, with which DeepEP's own tests run
FIRST: Final = "2025-02"  # the version of DeepEP whose low-latency kernels send everything over RDMA


def validate(data: Path | None = None) -> Validation:
    """Predict every row of a file with these columns. Raises BadInput where no row is understood."""
    path = data or shipped.shipped(*DATA)
    points: list[Point] = []
    refused: list[str] = []
    rows = read_rows(path, COLUMNS[:9], rest=COLUMNS[9:])
    for line, row in rows:
        try:
            points.append(_point(row))
        except BadInput as error:
            refused.append(f"{path.name}:{line}: {error}")
    if not points:
        raise nothing_understood(path, refused)
    return Validation(
        suite="collectives",
        points=tuple(points),
        breakdown_by=("op", "algorithm", "nodes"),
        provenance={
            "data": path.name,
            "costs": "the profile of the system, or of the measured one that it is like",
            "network": "alone on the shipped topology; algorithm auto: the one done first, as NCCL chooses",
            "held_out": "no row of this file was used in a fit; the tables of the profiles are NCCL's on one node",
        },
        warnings=(*refused, *dict.fromkeys(note for point in points for note in point.notes)),
        asked=len(rows),
        tables=dict(_tables()),
    )


def _tables() -> Iterator[tuple[str, dict[str, float]]]:
    """NCCL's tables of the shipped profiles, each world size held out of the fit in its turn."""
    for profile, path in sorted(known_profiles().items()):
        for kernel, held in read_section(path).heldout_communication.items():
            op, _, table = kernel.partition("/nccl/NCCL/")
            if table:
                yield f"{op} {table}, {profile}", {"median_abs_error": held.median, "p90_abs_error": held.p90}


def _point(row: Mapping[str, str]) -> Point:
    """Raises BadInput with the key and value that is not understood."""
    nodes, gpus = whole(row, "nodes"), whole(row, "gpus")
    if row["unit"] not in UNITS:
        raise unknown_name("unit", row["unit"], UNITS)
    measured = number(row, "value")
    if row["op"] in DEEPEP:
        predicted, chosen, notes = _deepep(row, nodes, gpus)
    else:
        predicted, chosen, notes = _nccl(row, nodes, gpus)
    keys = {
        "op": row["op"], "algorithm": chosen, "nodes": str(nodes), "system": row["system"],
        "size": row["bytes"] or f"{row['tokens']} tokens", "source": row["source"],
    }  # fmt: skip
    return Point(keys, row["unit"], measured, predicted, rate=row["unit"] in RATES, notes=notes)


def _nccl(row: Mapping[str, str], nodes: int, gpus: int) -> tuple[float, str, tuple[str, ...]]:
    """(predicted in the row's unit, algorithm, what has to be said of it)."""
    size = whole(row, "bytes")
    seconds, chosen, notes = collective_seconds(row["system"], nodes, gpus, row["op"], row["algorithm"] or "auto", size)
    if row["unit"] != "busbw GB/s":
        return seconds * {"us": 1e6, "ms": 1e3}[_time_unit(row)], chosen, notes
    moved = size * (gpus - 1) / gpus * (2 if row["op"] == "all_reduce" else 1)
    return moved / seconds / 1e9, chosen, notes


def collective_seconds(
    system: str, nodes: int, gpus: int, op: str, algorithm: str, size: int
) -> tuple[float, str, tuple[str, ...]]:  # fmt: skip
    """Seconds of `op` on `size` bytes a rank, alone; the algorithm that is run; notes. Raises BadInput."""
    cluster = _cluster(system, nodes, gpus)
    fabric = Fabric(cluster, _kernels(cluster, ("nccl", *dict.fromkeys(KERNEL.values()))))
    group = Group(cluster, np.arange(gpus, dtype=np.int32))
    if op == "all_to_all":
        each = np.full((gpus, gpus), size // gpus, dtype=np.int64)
        return (
            fabric.alone(fabric.coflow("nccl", Flows.between(group, each), group)),
            "pairwise",
            _notes(fabric, "nccl"),
        )
    if op not in RINGS:
        raise unknown_name("op", op, (*RINGS, "all_to_all", *DEEPEP))
    part = np.full(gpus, -(-size // gpus), dtype=np.int64)
    candidates = algorithms(op, group, groups(gpus, gpus), part)
    known = [one.algorithm for one in candidates]
    if algorithm != "auto":
        wanted = (algorithm, "nvls_tree") if algorithm == "nvls" and nodes > 1 else (algorithm,)
        candidates = tuple(one for one in candidates if one.algorithm in wanted)
    if not candidates:
        raise unknown_name("algorithm", algorithm, ("auto", *known))
    chosen, coflow = fabric.fastest(candidates, group)
    return fabric.alone(coflow), chosen.algorithm, _notes(fabric, KERNEL[chosen.algorithm])


def _deepep(row: Mapping[str, str], nodes: int, gpus: int) -> tuple[float, str, tuple[str, ...]]:
    """As `_nccl`. Low latency: dispatch and combine together; what the note says of the path and experts counts."""
    low = row["op"] == "deepep_low_latency"
    rdma = "pure rdma" in row["note"].lower()
    experts = 288 if "288 experts" in row["note"] else EXPERTS
    cluster = _cluster(row["system"], nodes, gpus)
    case = Case(
        algorithm="deepep_low_latency" if low else "deepep_normal", version=FIRST if rdma else None, path=None,
        op="combine" if row["op"].endswith("combine") else "dispatch", ranks=gpus, tokens=whole(row, "tokens"),
        top_k=TOP_K, groups=None if low else min(nodes, 4), experts=experts, hidden=HIDDEN,
        dtype="bf16" if row["op"].endswith("combine") else "fp8", topology=row["system"],
    )  # fmt: skip
    situation = Situation.of(case)
    kernel = situation.algorithm.kernel(situation.group)
    communication = _kernels(cluster, (kernel,))
    notes = Fabric(cluster, communication).notes
    seconds = situation.seconds(communication)
    if low:
        seconds += Situation.of(replace(case, op="combine", dtype="bf16")).seconds(communication)
        return seconds * {"us": 1e6, "ms": 1e3}[_time_unit(row)], kernel, notes
    tier = "nvlink" if nodes == 1 else "rdma"
    if row["unit"] != "logical GB/s":
        return seconds * {"us": 1e6, "ms": 1e3}[_time_unit(row)], kernel, notes
    return situation.logical_bytes(tier) / seconds / 1e9, kernel, notes


def _kernels(cluster: Cluster, kernels: tuple[str, ...]) -> dict[str, CommunicationCost]:
    device = cluster.devices[0]
    known = load_costs("auto", device).communication
    return {kernel: communication_of(known, kernel, device.name) for kernel in kernels}


def _notes(fabric: Fabric, kernel: str) -> tuple[str, ...]:
    return tuple(note for note in fabric.notes if note.startswith(f"{kernel}:"))


@lru_cache(maxsize=64)
def _cluster(system: str, nodes: int, gpus: int) -> Cluster:
    cluster = load_cluster(topology_of(system), nodes=nodes)
    if gpus > cluster.num_devices or gpus % nodes or gpus < 2:
        raise BadInput(f"gpus {gpus} on {nodes} nodes of {cluster.gpus_per_node}")
    if gpus != cluster.num_devices and nodes > 1:
        raise BadInput(f"gpus {gpus} are not all of {nodes} nodes of {cluster.gpus_per_node}")
    return cluster


def _time_unit(row: Mapping[str, str]) -> str:
    if row["unit"] not in ("us", "ms"):
        raise BadInput(f"unit {row['unit']!r} is no unit of {row['op']}", way_out="us, ms")
    return row["unit"]
