"""The communication constants of a profile: those of all systems, with what its own records of NCCL, of engines' own
all-reduces and of DeepEP say.

NCCL has a kernel each for grouped sends, for rings (and trees), and for reduction in the switch (NVLS); the rate of
each is that of its best table, between its last two sizes, and what a table takes beyond bytes over that rate is its
start-up. A scenario names no version of NCCL, so that a table is the mean over all versions that the records hold. An
engine's all-reduce is told in the same way, from its times inside CUDA graphs; of its versions the median counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from moesim.calibration.deepep import in_one_node, spread_of
from moesim.calibration.demands import KIND
from moesim.calibration.fit_operator import Peaks
from moesim.calibration.heldout import Errors, Prepared, held_out, pooled, prepare, splits
from moesim.calibration.kernels import name_of
from moesim.calibration.nvlink_domain import KERNELS, in_one_domain, rows_of
from moesim.calibration.nvlink_domain import held_out as domain_held_out
from moesim.calibration.records import Records, join
from moesim.calibration.systems import System
from moesim.hardware import Cluster, load_cluster

WAYS: Final = {"collective": "world", "exchange": "shape"}
LARGEST: Final = 8  # ranks that most systems were measured with
ROUNDS: Final = 1e7  # a second at most, of peers that follow each other
ENGINES: Final = {  # engine -> its all-reduce as decode steps call it: out of a CUDA graph
    "sglang": "SGLang_CustomAllReduce_graph", "trtllm": "TRTLLM", "vllm": "vLLM_custom_graph",
}  # fmt: skip
OPS: Final = {"nccl": ("all_to_all",), "nccl_ring": ("all_gather", "reduce_scatter", "all_reduce"),
              "nccl_nvls": ("all_reduce",)}  # fmt: skip
IN_SWITCH: Final = 1.15  # an all-reduce with that many times the bus bandwidth of rings is summed up in the switch
SPREAD_OF: Final = {  # kernel -> whose held-out errors hold for it
    "nccl": "all_to_all/nccl/NCCL/bf16",
    "nccl_ring": "all_gather/nccl/NCCL/bf16",
    "nccl_nvls": "all_reduce/nccl/NCCL/bf16",
}
BETWEEN: Final = "Between nodes: "  # behind it stands in a source what no table of one node can tell


class Table(NamedTuple):
    """One op over `world` ranks: bytes that a rank sends float64[n] ascending, seconds float64[n]."""

    op: str
    world: int
    sent: np.ndarray[tuple[int], np.dtype[np.float64]]
    seconds: np.ndarray[tuple[int], np.dtype[np.float64]]

    @property
    def rate(self) -> float:
        """B/s that the largest two sizes differ by, or that the only one reaches."""
        if len(self.sent) == 1:
            return float(self.sent[0] / self.seconds[0])
        return float((self.sent[-1] - self.sent[-2]) / max(self.seconds[-1] - self.seconds[-2], 1e-12))


def section(records: Records, system: System, heldout: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The `communication` section of a profile. heldout: see `held_out_errors`, as a profile writes them."""
    records = telling(records)
    plain: dict[str, Any] = copy.deepcopy(system.raw["communication"])  # type: ignore[arg-type]
    cluster = load_cluster(system.facts.topology)
    nccl = records.of(backend="nccl", dtype="bf16").usable
    for kernel, tables in _by_kernel(nccl, cluster).items():
        plain[kernel] = plain[kernel] | _nccl(kernel, tables, nccl, system, cluster)
    plain |= {f"all_reduce_{one}": _of_engine(one, records, system, cluster, heldout) for one in _measured(records)}
    plain |= in_one_node(records, system, cluster, plain)
    plain |= in_one_domain(records, system, cluster)
    for kernel, name in SPREAD_OF.items():
        if name in heldout:
            plain[kernel]["spread"] = spread_of(heldout[name]["p90"])
    return plain


def telling(records: Records) -> Records:
    """Rows that tell what the links of a node do: of one node, evenly split, and of a kernel that was timed in graphs
    too those, as the host decides in eager mode.
    """
    even = np.isin(records["distribution"].astype(str), ["", "balanced"])
    kept = records.where((records["nodes"] == 1) & (even | (records["op"] != "all_to_all")))
    named = list(zip(*(kept[name].tolist() for name in ("op", "backend", "kernel", "mode")), strict=True))
    graphed = {(op, backend, kernel) for op, backend, kernel, mode in named if mode == "graph"}
    return kept.where(
        np.array([mode != "eager" or tuple(kernel) not in graphed for *kernel, mode in named], dtype=bool)
    )


def untold(records: Records) -> list[str]:
    """What is said of rows that do not tell what links do."""
    exchanged = records.where(np.isin(records["op"].astype(str), [op for ops in OPS.values() for op in ops]))
    left = len(exchanged) - len(telling(exchanged))
    why = "on several nodes, unevenly split, or eager beside rows in graphs"
    return [f"links: {left} of {len(exchanged)} rows are left out ({why})"] if left else []


def _measured(records: Records) -> list[str]:
    """Engines whose own all-reduce the records hold."""
    return [name for name, kernel in ENGINES.items() if len(records.of(backend=name, kernel=kernel).usable)]


def _of_engine(
    engine: str, records: Records, system: System, cluster: Cluster, heldout: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:  # fmt: skip
    """Its section. Held-out errors are those of a world size that was left out; without any, of NCCL's rings."""
    rows = records.of(op="all_reduce", backend=engine, kernel=ENGINES[engine]).usable
    tables = _tables(rows, np.median)
    nominal = float(np.max(cluster.link_capacity))
    best = max(tables, key=lambda one: one.rate)
    fraction = round(min(best.rate / nominal, 1.0), 3)
    judged = [one["p90"] for name, one in heldout.items() if name.startswith(f"all_reduce/{engine}/{ENGINES[engine]}/")]
    ring: dict[str, Any] = system.raw["communication"]["nccl_ring"]  # type: ignore[index]
    return {
        "alpha": ring["alpha"], "efficiency": {"nvlink": fraction}, "sms": ring["sms"],
        "steps": [_steps(table, fraction * nominal) for table in tables],
        "spread": spread_of(judged[0]) if judged else ring["spread"], "device": system.device.name, "basis": "fitted",
        "source": (
            f"{engine} {', '.join(sorted(set(map(str, rows['version']))))}, {ENGINES[engine]}: all sizes as dispatched "
            "(one-shot, two-shot, then NCCL) on 2, 4 and 8 GPUs of one node, median over versions "
            "(aiconfigurator-core 0.12.0, NVIDIA, or own records)"
        ),
    }  # fmt: skip


def _by_kernel(nccl: Records, cluster: Cluster) -> dict[str, list[Table]]:
    """kernel -> its tables. Where an all-reduce outruns rings its table is that of NVLS, and a ring or tree over as
    many ranks, which the library did not choose, takes as long or what its bytes need.
    """
    tables = _tables(nccl)
    ring = max((one.rate for one in tables if one.op in ("all_gather", "reduce_scatter")), default=np.inf)
    found: dict[str, list[Table]] = {}
    for table in tables:
        if table.op == "all_reduce" and cluster.reduces_in_switch and table.rate > IN_SWITCH * ring:
            size = table.sent * table.world / (2 * (table.world - 1))
            reduced = table._replace(sent=size * (1 + 1 / table.world))  # see network/rails.py
            found.setdefault("nccl_nvls", []).append(reduced)
            table = table._replace(seconds=np.maximum(table.seconds, table.sent / ring))
        found.setdefault("nccl" if table.op == "all_to_all" else "nccl_ring", []).append(table)
    return found


def _tables(records: Records, over: Callable[[list[Any]], Any] = np.mean) -> list[Table]:
    """One for each op and number of ranks; `over` versions of their medians, by default the mean."""
    found = []
    for op in sorted({op for ops in OPS.values() for op in ops}):
        part = records.of(op=op)
        for world in np.unique(part["world"]):
            rows = part.where(part["world"] == world)
            twice = 2 if op == "all_reduce" else 1
            sent = rows["bytes"] * (world - 1) / world * twice
            sizes = np.unique(sent)  # each rank has a record of its own
            seconds = [over(_medians(rows["version"][sent == size], rows["seconds"][sent == size])) for size in sizes]
            found.append(Table(op, int(world), sizes, np.array(seconds)))
    return found


def _medians(versions: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]) -> list[float]:
    return [float(np.median(seconds[versions == one])) for one in np.unique(versions)]


def _nccl(
    kernel: str, tables: Sequence[Table], nccl: Records, system: System, cluster: Cluster
) -> dict[str, Any]:  # fmt: skip
    """Rate, start-ups and source of one of NCCL's kernels, over the plain constants."""
    nominal = float(np.max(cluster.link_capacity))
    best = max(tables, key=lambda one: one.rate)
    fraction = round(min(best.rate / nominal, 1.0), 3)
    plain: dict[str, Any] = system.raw["communication"][kernel]  # type: ignore[index]
    versions = ", ".join(sorted(set(map(str, nccl["version"]))))
    return {
        "efficiency": plain["efficiency"] | {"nvlink": fraction},
        "steps": [_steps(table, fraction * nominal) for table in tables],
        "device": system.device.name,
        "source": (
            f"NCCL {versions}: {best.rate / 1e9:.0f} of {nominal / 1e9:.0f} GB/s between the largest sizes of "
            f"{best.op} on {best.world} GPUs, and what all sizes take beyond that (aiconfigurator-core 0.12.0, "
            f"NVIDIA, or own records); mean over versions. {BETWEEN}{plain['source'].partition(BETWEEN)[2]}"
        ),
    }


def _steps(table: Table, rate: float) -> dict[str, Any]:
    alpha = np.maximum(table.seconds - table.sent / rate, 0.0)
    return {
        "op": table.op, "ranks": table.world, "bytes": [f"{size:.0f} B" for size in table.sent],
        "alpha": [f"{a * 1e6:.4g} us" for a in alpha],
    }  # fmt: skip


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
    found |= domain_errors(parts)
    return found | {group: pooled(errors) for group, errors in groups.items()}


def domain_errors(parts: Sequence[Records]) -> dict[str, Errors]:
    """Of exchanges over one NVLink domain, on a number of GPUs that was left out."""
    rows = {kernel: rows_of(join(parts), measured) for measured, kernel in KERNELS.items()}
    return {kernel: domain_held_out(one) for kernel, one in rows.items() if len(one)}


def within_reach(records: Records) -> Records:
    """Of a collective's records those of up to LARGEST ranks in a node; all of another operator's."""
    collective = KIND.get(str(records["op"][0])) == "collective"
    return records.where((records["world"] <= LARGEST) & (records["nodes"] == 1)) if collective else records


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
