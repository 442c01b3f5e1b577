"""Do the parts of latent attention add up? `python -m benchmarks.latent_modules` takes the tables of whole modules in
aiconfigurator-core 0.12.0 (attention of DeepSeek-V3 with its projections, TensorRT-LLM's and vLLM's; SGLang's decode
behind the projections down, which its large-EP tables leave out), and sets what moesim charges for their GEMMs and the
rest in serving beside each row. Profiles are fitted to the sound ones of these tables with block-scaled fp8 weights
(held-out errors: calibration/README.md); the others have a core, and SGLang's no fit saw. Rows with bf16 weights are
another test: no fit saw them.

sum / measured: 10th, 50th and 90th percentile of all rows; off: median and 90th percentile of |sum / measured - 1|.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moesim.calibration.aiconfigurator import tables_folder
from moesim.calibration.systems import find_system
from moesim.costs import CostModel, load_costs
from moesim.models import MoEModel, load_model

SYSTEMS: Final = ("h100_sxm", "h200_sxm", "b200_sxm", "gb200", "rtx_pro_6000")
TABLES: Final = (
    ("decode", "mla_generation_module_perf.parquet"),
    ("prefill", "mla_context_module_perf.parquet"),
    ("decode", "wideep_generation_mla_perf.parquet"),
)
BEHIND: Final = "wideep"  # tables of what stands behind the projections down; of them the newest version
DOWN: Final = "qkv_down"
MODEL: Final = "deepseek-ai/DeepSeek-V3"
DTYPES: Final = {"bfloat16": "bf16", "fp8_block": "fp8", "fp8": "fp8"}
ABSORBED: Final = "kv_up"  # kept in bf16 by engines whatever the others are


def main() -> None:
    """Print the table."""
    print("| device | engine | phase | plays | rows | sum / measured | off |\n|---|---|---|---|---|---|---|")
    for system in SYSTEMS:
        for phase, name in TABLES:
            for path in _paths(system, name):
                ratio = np.concatenate(list(_ratios(system, phase, path)))
                low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
                off = np.abs(ratio - 1)
                engine, plays = path.parent.parent.name, _plays(system, phase, path)
                print(f"| {system} | {engine} | {phase} | {plays} | {len(ratio)} | {low:.2f}, {middle:.2f}, {high:.2f} "
                      f"| {np.median(off):.1%} / {np.quantile(off, 0.9):.1%} |")  # fmt: skip


def _paths(system: str, name: str) -> list[Path]:
    """Of every engine; of large-EP tables the newest alone."""
    found = sorted((tables_folder() / find_system(system).facts.table).rglob(name), key=_version)
    return found[-1:] if name.startswith(BEHIND) else found


def _version(path: Path) -> list[str | int]:
    return [path.parent.parent.name, *(int(one) for one in re.findall(r"\d+", path.parent.name))]


def _costs(system: str, path: Path) -> CostModel:
    """Of the engine whose table it is."""
    return load_costs(system, find_system(system).device, path.parent.parent.name, precision="fp8")


def _plays(system: str, phase: str, path: Path) -> str:
    """The kernel beside the GEMMs, over a bf16 cache."""
    shape = load_model(MODEL).attention
    found = _costs(system, path).latent_attention(phase, 1, 0, 1, shape, shape.num_heads, "bf16", "bf16")
    return "module" if found.role.startswith("latent") else f"core of {found.kernel.split('/')[1]}"


def _ratios(system: str, phase: str, path: Path) -> Iterator[npt.NDArray[np.float64]]:
    """float64[rows]: sum / measured, for each dtype of weights and cache that moesim has."""
    costs, model = _costs(system, path), load_model(MODEL)
    table = pq.read_table(path)
    behind = path.name.startswith(BEHIND)
    queries = pc.or_(pc.equal(table["mla_dtype"], "bfloat16"), behind)
    table = table.filter(pc.and_(pc.equal(table["model"], MODEL), queries))
    kinds = sorted(set(zip(table["gemm_type"].to_pylist(), table["kv_cache_dtype"].to_pylist(), strict=True)))
    for weights, cache in (kind for kind in kinds if {*kind} <= set(DTYPES)):
        own = table.filter(pc.and_(pc.equal(table["gemm_type"], weights), pc.equal(table["kv_cache_dtype"], cache)))
        rows = {column: own[column].to_numpy() for column in ("num_heads", "batch_size", "isl", "step", "latency")}
        apart = (DOWN,) if behind else ()
        yield _seconds(costs, model, phase, rows, DTYPES[weights], DTYPES[cache], apart) / (rows["latency"] * 1e-3)


def _seconds(
    costs: CostModel, model: MoEModel, phase: str, rows: dict[str, npt.NDArray[np.int64]], weights: str, cache: str,
    apart: tuple[str, ...],
) -> npt.NDArray[np.float64]:  # fmt: skip
    """float64[rows]: GEMMs but those `apart`, and core; `step` are cached tokens, a decode's `isl` is its new one."""
    found, batch = np.zeros(len(rows["latency"])), rows["batch_size"]
    query, context = (1, rows["isl"] + rows["step"] - 1) if phase == "decode" else (rows["isl"], rows["step"])
    for heads in np.unique(rows["num_heads"]):
        at, shape = rows["num_heads"] == heads, replace(model.attention, num_heads=int(heads), num_kv_heads=int(heads))
        q, c = (np.broadcast_to(column, len(at))[at] for column in (query, context))
        found[at] = costs.latent_attention(phase, q, c, batch[at], shape, int(heads), cache, "bf16").seconds
        for one in (gemm for gemm in shape.gemms(model.hidden_size) if gemm.name not in apart):
            dtype = "bf16" if one.name == ABSORBED else weights
            found[at] += costs.gemm(batch[at] * q, one.n, one.k, dtype).seconds
    return found


if __name__ == "__main__":
    main()
