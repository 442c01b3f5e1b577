"""Import of the measured kernel tables in aiconfigurator-core (NVIDIA, Apache-2.0) as records.

`systems/data/SYSTEM/OP/BACKEND/VERSION/*_perf.parquet` hold one mean latency per row (in ms, or in us where the column
says so). What they do not hold is made up by rule and marked: the rows of each expert (`histograms`), and experts of
two matrices where TensorRT-LLM's kernel source says that a shape is not gated. Of each backend one version is read:
the one in VERSIONS where a table has it, the newest otherwise.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moesim.calibration.histograms import histograms, slot_histograms
from moesim.calibration.records import Records, join, records_from
from moesim.costs.latent import HIDDEN as LATENT_HIDDEN
from moesim.errors import BadInput, unknown_name

PACKAGE: Final = "aiconfigurator-core"
VERSIONS: Final = {"vllm": "0.24.0", "trtllm": "1.3.0rc20", "sglang": "0.5.14"}
DTYPES: Final = {"bfloat16": "bf16", "half": "bf16", "default": "fp8", "fp8_e4m3": "fp8"}
BYTES: Final = {"half": 2, "bfloat16": 2, "int8": 1}
HIDDEN: Final = {"DeepseekV32ForCausalLM": 7168, "GlmMoeDsaForCausalLM": 6144}
COMPRESSED: Final = {"DeepSeek-V4-Flash": 4096, "DeepSeek-V4-Pro": 7168}
BLOCKS: Final = 6144  # of MiniMax-M3, whose 64 heads are at most on a rank
COMMUNICATION: Final = (
    "nccl_perf.parquet", "custom_allreduce_perf.parquet", "wideep_deepep_ll_perf.parquet",
    "wideep_deepep_normal_perf.parquet", "trtllm_alltoall_perf.parquet",
)  # fmt: skip
COLLECTIVES: Final = {"alltoall": "all_to_all"}
NOT_GATED: Final = frozenset(
    {(1024, 2688, 22, 512), (2048, 5120, 22, 512), (2688, 1856, 6, 128), (4096, 2688, 22, 512), (8192, 5120, 22, 512)}
)  # (hidden, inter, topk, experts) that TensorRT-LLM's tables time with a kernel source *_nongated
SHAPE: Final = {"hidden": "hidden_size", "inter": "inter_size", "topk": "topk", "experts": "num_experts"}

Table = dict[str, npt.NDArray[Any]]
Columns = dict[str, Any]


def import_tables(system: str, ops: Iterable[str] = ()) -> Records:
    """All tables of one system that moesim has an operator for, or those of `ops` only. Raises BadInput."""
    folder = tables_folder() / system
    if not folder.is_dir():
        raise unknown_name("system", system, (path.name for path in tables_folder().iterdir() if path.is_dir()))
    parts = [part for path in _tables(folder) for part in _read(system, path)]
    wanted = set(ops)
    kept = [part for part in parts if not wanted or part["op"][0] in wanted]
    if not kept:
        raise BadInput(f"{PACKAGE} measured none of {', '.join(sorted(wanted)) or 'our operators'} on {system}")
    return join(kept)


def import_communication(system: str, devices: Iterable[str]) -> Records:
    """Tables of NCCL, of engines' all-reduces and of DeepEP, of one system in all versions, rows of `devices` only:
    some tables hold another's.
    """
    paths = [path for name in COMMUNICATION for path in sorted((tables_folder() / system).rglob(name))]
    joined = join([part for path in paths for part in _read(system, path)])
    return joined.where(np.isin(joined["device"], list(devices)))


def tables_folder() -> Path:
    """The package's data, found without importing it."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"{PACKAGE} is not installed", way_out=f"pip install --no-deps {PACKAGE}==0.12.0")
    return Path(next(iter(spec.submodule_search_locations))) / "systems" / "data"


def _tables(folder: Path) -> list[Path]:
    """One file of each kind and backend, by version."""
    chosen: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*_perf.parquet"), key=lambda p: _version(p.parent.name)):
        key = (path.name, path.parent.parent.name)
        held = chosen.get(key)
        if path.name in READERS and (held is None or held.parent.name != VERSIONS.get(key[1])):
            chosen[key] = path
    return [chosen[key] for key in sorted(chosen)]


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _read(system: str, path: Path) -> list[Records]:
    """One table -> records of each operator in it."""
    table = pq.read_table(path)
    rows: Table = {name: table[name].to_numpy() for name in table.column_names}
    backend, version = path.parent.parent.name, path.parent.name
    name = f"{path.parent.parent.parent.name}/{backend}/{version}/{path.name}"
    try:
        parts = READERS[path.name](rows)
    except KeyError as error:
        raise BadInput(f"has no column {error}", where=name, way_out=f"{PACKAGE} 0.12.0") from None
    return [_records(system, name, backend, version, rows, part) for part in parts]


def _records(system: str, name: str, backend: str, version: str, rows: Table, part: Columns) -> Records:
    """Completed by what all rows of a table share. Raises BadInput where a latency is missing or not positive."""
    seconds = np.asarray(part["seconds"], dtype=np.float64)
    bad = ~(np.isfinite(seconds) & (seconds > 0))
    if bad.any():
        raise BadInput(
            f"{int(bad.sum())} of {len(bad)} rows have a missing or non-positive latency",
            where=name,
            way_out="another version of the package; no row was imported",
        )
    count = len(seconds)
    device = str(rows["device"][0]) if "device" in rows else system
    shared: Columns = {
        "run": f"{PACKAGE}/{system}/{backend}/{version}", "device_class": "cuda", "backend": backend,
        "version": version, "provenance": f"{PACKAGE} {importlib.metadata.version(PACKAGE)} {name}",
        "device": device,
    }  # fmt: skip
    full = {"case": np.arange(count)} | shared | part
    return records_from({k: pa.repeat(v, count) if isinstance(v, (str, int)) else v for k, v in full.items()})


def _text(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values, type=pa.string())


def _dtypes(values: npt.NDArray[Any]) -> pa.Array:
    coded = _text(values).dictionary_encode()
    return pa.array([DTYPES.get(one, one) for one in coded.dictionary.to_pylist()]).take(coded.indices)


def _ms(rows: Table, name: str = "latency") -> npt.NDArray[np.float64]:
    return np.asarray(rows[name], dtype=np.float64) * 1e-3


def _gemm(rows: Table) -> list[Columns]:
    sizes = {name: rows[name] for name in ("m", "n", "k")}
    return [{"op": "gemm", "kernel": _text(rows["kernel_source"]), "dtype": _dtypes(rows["gemm_dtype"]),
             "seconds": _ms(rows), **sizes}]  # fmt: skip


def _moe(rows: Table) -> list[Columns]:
    shape = {name: rows[column] for name, column in SHAPE.items()}
    named = zip(zip(*(column.tolist() for column in shape.values()), strict=True), rows["kernel_source"], strict=True)
    ungated = [key in NOT_GATED or "nongated" in kernel for key, kernel in named]
    sizes, draws = _group_sizes(rows)
    return [{
        "op": "grouped_gemm", "kernel": _text(rows["kernel_source"]), "dtype": _dtypes(rows["moe_dtype"]),
        "seconds": _ms(rows), "tokens": rows["num_tokens"], **shape,
        "matrices": np.where(ungated, 2, 3), "tp": rows["moe_tp_size"], "ep": rows["moe_ep_size"],
        "distribution": _text(rows["distribution"]), "group_sizes": sizes, "draws": draws,
        "group_basis": "regenerated",
    }]  # fmt: skip


def _dispatched(form: str) -> Callable[[Table], list[Columns]]:
    """Experts behind DeepEP: one kernel source, but another layout of the rows for each of its two modes."""

    def read(rows: Table) -> list[Columns]:
        return [
            part | {"kernel": pa.array([f"{name}_{form}" for name in rows["kernel_source"]])} for part in _moe(rows)
        ]

    return read


def _slots(rows: Table) -> list[Columns]:
    """TensorRT-LLM's experts behind its all-to-all; `*_eplb`: planned on the load, with redundant experts in slots."""
    plain = rows | {
        "distribution": np.array([name.removesuffix("_eplb") for name in rows["distribution"]], dtype=object)
    }
    names = ("num_tokens", "num_experts", "topk", "moe_ep_size", "distribution", "num_slots")
    laws = rows["distribution"].tolist()
    planned = [law.endswith("_eplb") for law in laws]
    keys = list(zip(*(plain[name].tolist() for name in names), planned, strict=True))
    sizes, draws = _regenerated(keys, slot_histograms)
    shape = {name: rows[column] for name, column in SHAPE.items()}
    return [{
        "op": "grouped_gemm", "kernel": _text(rows["kernel_source"]), "dtype": _dtypes(rows["moe_dtype"]),
        "seconds": _ms(rows), "tokens": rows["num_tokens"], **shape, "matrices": 3, "tp": rows["moe_tp_size"],
        "ep": rows["moe_ep_size"], "group_sizes": sizes, "draws": draws, "group_basis": "regenerated",
        "distribution": pa.array([f"{law}:{slots}" for law, slots in zip(laws, rows["num_slots"], strict=True)]),
    }]  # fmt: skip


def _group_sizes(rows: Table) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    names = ("num_tokens", "num_experts", "topk", "moe_ep_size", "distribution")
    return _regenerated(list(zip(*(rows[name].tolist() for name in names), strict=True)), histograms)


def _regenerated(keys: list[tuple[Any, ...]], make: Callable[..., Any]) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Rows of equal keys share one regenerated histogram -> a list per row, and its draws."""
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    made = [make(*key) for key in number]
    starts = np.concatenate([[0], np.cumsum([one.size for one in made])]).astype(np.int32)
    distinct = pa.ListArray.from_arrays(starts, np.concatenate([one.ravel() for one in made]))
    index = np.array([number[key] for key in keys])
    return distinct.take(pa.array(index)), np.array([len(one) for one in made], dtype=np.int64)[index]


def _attention(op: str) -> Callable[[Table], list[Columns]]:
    def read(rows: Table) -> list[Columns]:
        heads, kv_heads = rows["num_heads"], rows["num_key_value_heads"]
        return [{
            **_sequences(op, rows), "dtype": _dtypes(rows["attn_dtype"]), "head_dim": rows["head_dim"],
            "kv_heads": np.where(kv_heads == 0, heads, kv_heads), "window": rows.get("window_size", 0),
        }]  # fmt: skip

    return read


def _encoder(rows: Table) -> list[Columns]:
    """Whole sequences at once; keys and values have as many heads as queries."""
    sequences = {"batch": rows["batch_size"], "query": rows["isl"], "context": 0}
    heads = {"heads": rows["num_heads"], "kv_heads": rows["num_heads"], "head_dim": rows["head_dim"]}
    return [{"op": "attention_encoder", "kernel": _text(rows["kernel_source"]), "seconds": _ms(rows),
             "dtype": _dtypes(rows["attn_dtype"]), **sequences, **heads}]  # fmt: skip


def _mla(op: str) -> Callable[[Table], list[Columns]]:
    def read(rows: Table) -> list[Columns]:
        return [{**_sequences(op, rows), "dtype": _dtypes(rows["mla_dtype"])}]

    return read


def _absorbed(rows: Table) -> list[Columns]:
    """Both absorbed projections of latent attention, into the latent space before the core and out of it behind: of
    cells that hold both the sum, of what was measured twice the mean. In bf16: engines keep these weights so, unless
    they are told otherwise.
    """
    chosen = rows["bmm_dtype"] == "bfloat16"
    kept = {name: column[chosen] for name, column in rows.items()}
    cells, number = np.unique(np.stack([kept["num_tokens"], kept["num_heads"]]), axis=1, return_inverse=True)
    cell, size = number.ravel(), cells.shape[1]
    halves = [kept["op_name"] == name for name in ("mla_gen_pre", "mla_gen_post")]
    times = [np.bincount(cell[own], minlength=size) for own in halves]
    sums = [np.bincount(cell[own], _ms(kept)[own], size) for own in halves]
    both = np.minimum(*times) > 0
    seconds = sum(total[both] / count[both] for total, count in zip(sums, times, strict=True))
    return [{"op": "absorbed", "kernel": str(kept["kernel_source"][0]), "dtype": "bf16", "seconds": seconds,
             "tokens": cells[0, both], "heads": cells[1, both]}]  # fmt: skip


def _latent(phase: str) -> Callable[[Table], list[Columns]]:
    """Modules of DeepSeek-V3's latent attention. An engine chooses its backend by the shape: all are one kernel here.
    Prefill with queries in fp8 is an option that no engine takes by itself, and left out.
    """

    def read(rows: Table) -> list[Columns]:
        chosen = (rows["mla_dtype"] == "bfloat16") & (rows["architecture"] == "DeepseekV3ForCausalLM")
        kept = {name: column[chosen] for name, column in rows.items()}
        own = {"kernel": "module", "dtype": _dtypes(kept["gemm_type"]), "hidden": LATENT_HIDDEN}
        return [_sequences(f"latent_{phase}", kept) | own]

    return read


def _sparse(phase: str) -> Callable[[Table], list[Columns]]:
    """Modules of sparse attention, those that pick and those that take another layer's picks. SGLang attends in full to
    prompts that are no longer than what would be picked: that is `mla_prefill` and not read here.
    """

    def read(rows: Table) -> list[Columns]:
        kernel, names = rows["kernel_source"].astype(str), rows["op_name"].astype(str)
        reuse, dense = np.char.endswith(names, "skip_indexer"), np.char.find(kernel, "dense_mha") >= 0
        width = np.array([HIDDEN.get(str(name), 0) for name in rows["architecture"]])
        found = []
        for part, own in (("", ~reuse), ("reuse_", reuse)):
            chosen = own & ~dense & (width > 0)
            if chosen.any():
                kept = {name: column[chosen] for name, column in rows.items()}
                found.append({**_sequences(f"dsa_{part}{phase}", kept), "dtype": _dtypes(kept["gemm_type"]),
                              "hidden": width[chosen]})  # fmt: skip
        return found

    return read


def _compressed(kind: str, phase: str) -> Callable[[Table], list[Columns]]:
    """Modules of DeepSeek-V4's attention, of both of its sizes."""

    def read(rows: Table) -> list[Columns]:
        names = [str(name).rpartition("/")[2].removesuffix("-FP8") for name in rows["model"]]
        return [{**_sequences(f"{kind}_{phase}", rows), "dtype": _dtypes(rows["gemm_type"]),
                 "hidden": np.array([COMPRESSED[name] for name in names])}]  # fmt: skip

    return read


def _blocks(phase: str) -> Callable[[Table], list[Columns]]:
    """Modules of MiniMax-M3's attention to picked blocks. Kernels are chosen by the shape: all are one here."""

    def read(rows: Table) -> list[Columns]:
        chosen = (rows["num_heads"] >= 4) & (rows["num_heads"] <= 64)
        kept = {name: column[chosen] for name, column in rows.items()}
        own = {"kernel": "module", "dtype": _dtypes(kept["gemm_type"]), "hidden": BLOCKS}
        return [_sequences(f"msa_{phase}", kept) | own]

    return read


def _hyper(rows: Table) -> list[Columns]:
    """Hyper-connections around one of a layer's `num_sites` blocks, which the table adds up. Kernels are chosen by the
    number of tokens: all are one here.
    """
    ops = rows["op_name"].astype(str)
    parts = [(f"hyper_{part}", ops == part) for part in ("pre", "post")]
    return [
        {"op": op, "kernel": "module", "dtype": "bf16", "seconds": _ms(rows)[own] / rows["num_sites"][own],
         "tokens": rows["num_tokens"][own], "hidden": rows["hidden_size"][own]}
        for op, own in parts if own.any()
    ]  # fmt: skip


def _sequences(op: str, rows: Table) -> Columns:
    """In decode a sequence has isl + step cached tokens, the new one among them."""
    decode = op.endswith("decode")
    return {
        "op": op, "kernel": _text(rows["kernel_source"]), "seconds": _ms(rows), "batch": rows["batch_size"],
        "query": 1 if decode else rows["isl"], "context": rows["isl"] + rows["step"] - 1 if decode else rows["step"],
        "heads": rows["num_heads"], "cache_dtype": _dtypes(rows["kv_cache_dtype"]),
    }  # fmt: skip


def _recurrent(kind: str) -> Callable[[Table], list[Columns]]:
    """A table of two kernels in two phases: the convolution and the recurrence. Drafts that are verified are left out,
    and KDA's convolutions: GDN's are the same kernels on more shapes.
    """

    def read(rows: Table) -> list[Columns]:
        conv = np.array(["conv1d" in name for name in rows["kernel_source"]])
        found = []
        for phase, ours in (("context", "prefill"), ("generation", "decode")):
            for op, own in ((f"conv_{ours}", conv), (f"{kind}_{ours}", ~conv)):
                chosen = own & (rows["phase"] == phase)
                if chosen.any() and (kind, op[:4]) != ("kda", "conv"):
                    found.append(_recurrence(op, {name: column[chosen] for name, column in rows.items()}))
        return found

    return read


def _recurrence(op: str, rows: Table) -> Columns:
    shared = {
        "op": op, "kernel": _text(rows["kernel_source"]), "dtype": "bf16", "seconds": _ms(rows),
        "batch": rows["batch_size"], "query": rows["seq_len"],
    }  # fmt: skip
    keys, values = rows["num_k_heads"], rows["num_v_heads"]
    if op.startswith("conv"):
        return shared | {"hidden": 2 * keys * rows["head_k_dim"] + values * rows["head_v_dim"]}
    return shared | {"heads": values, "kv_heads": keys, "head_dim": rows["head_k_dim"]}


def _mamba2(rows: Table) -> list[Columns]:
    """Its table holds the convolution alone: the scan was not measured."""
    names = {"num_k_heads": rows["n_groups"], "head_k_dim": rows["d_state"],
             "num_v_heads": rows["nheads"], "head_v_dim": rows["head_dim"]}  # fmt: skip
    return [part for part in _recurrent("mamba2")(rows | names) if str(part["op"]).startswith("conv")]


def _nccl(rows: Table) -> list[Columns]:
    """`message_size` counts elements of the larger buffer of a rank."""
    ops = np.array([COLLECTIVES.get(str(name), str(name)) for name in rows["op_name"]])
    return [_collective(op, {k: v[ops == op] for k, v in rows.items()}, "nccl_dtype") for op in sorted(set(ops))]


def _custom_allreduce(rows: Table) -> list[Columns]:
    return [_collective("all_reduce", rows, "allreduce_dtype")]


def _collective(op: str, rows: Table, dtype: str) -> Columns:
    width = np.array([BYTES[str(name)] for name in rows[dtype]])
    kernel = rows["kernel_source"]
    modes = [name.rpartition("_")[2] if "custom" in name.lower() else "" for name in kernel]
    return {
        "op": op, "kernel": _text(kernel), "dtype": _dtypes(rows[dtype]), "seconds": _ms(rows),
        "world": rows["num_gpus"], "bytes": rows["message_size"] * width, "mode": modes,
    }  # fmt: skip


def _deepep_low_latency(rows: Table) -> list[Columns]:
    return [_exchange(op, rows, "low_latency", rows[f"{op}_avg_t_us"], 0) for op in ("dispatch", "combine")]


def _deepep_normal(rows: Table) -> list[Columns]:
    return [
        _exchange(op, rows, "normal", rows[f"{op}_transmit_us"] + rows[f"{op}_notify_us"], rows[f"{op}_sms"])
        for op in ("dispatch", "combine")
    ]


def _exchange(op: str, rows: Table, kind: str, us: npt.NDArray[Any], sms: Any) -> Columns:
    """DeepEP on one node of eight GPUs (node_num = 1)."""
    return {
        "op": op, "kernel": f"deepep_{kind}", "dtype": "fp8" if op == "dispatch" else "bf16", "seconds": us * 1e-6,
        "tokens": rows["num_token"], "hidden": rows["hidden_size"], "topk": rows["num_topk"],
        "experts": rows["num_experts"], "world": 8 * rows["node_num"], "sms": sms,
    }  # fmt: skip


NVLINK: Final = {"NVLinkOneSided": "nvlink_one_sided", "NVLinkTwoSided": "nvlink_two_sided"}


def _nvlink_domain(rows: Table) -> list[Columns]:
    """TensorRT-LLM's exchange over multi-node NVLink; tokens are those of one rank. The two-sided one prepares first:
    that is part of its dispatch. Results come back in bf16; combining in low precision is left out.
    """
    key = [rows[name].tolist() for name in ("moe_dtype", "moe_ep_size", "num_tokens")]
    cells, ops = list(zip(*key, strict=True)), rows["op_name"].astype(str)
    prepare = {cells[row]: rows["latency"][row] for row in np.flatnonzero(ops == "alltoall_prepare").tolist()}
    found = []
    for source, kernel in NVLINK.items():
        for op in ("dispatch", "combine"):
            own = np.flatnonzero((rows["kernel_source"] == source) & (ops == f"alltoall_{op}"))
            before = [prepare.get(cells[row], 0.0) if source == "NVLinkTwoSided" else 0.0 for row in own.tolist()]
            seconds = (rows["latency"][own] + np.array(before) * (op == "dispatch")) * 1e-3
            found.append({
                "op": op, "kernel": kernel, "seconds": seconds, "tokens": rows["num_tokens"][own],
                "dtype": _dtypes(rows["moe_dtype"][own]) if op == "dispatch" else "bf16",
                "hidden": rows["hidden_size"][own], "topk": rows["topk"][own], "experts": rows["num_experts"][own],
                "world": rows["moe_ep_size"][own],
            })  # fmt: skip
    return found


READERS: Final[dict[str, Callable[[Table], list[Columns]]]] = {
    "gemm_perf.parquet": _gemm,
    "moe_perf.parquet": _moe,
    "wideep_context_moe_perf.parquet": _dispatched("contiguous"),
    "wideep_generation_moe_perf.parquet": _dispatched("masked"),
    "wideep_moe_perf.parquet": _slots,
    "context_attention_perf.parquet": _attention("attention_prefill"),
    "generation_attention_perf.parquet": _attention("attention_decode"),
    "encoder_attention_perf.parquet": _encoder,
    "context_mla_perf.parquet": _mla("mla_prefill"),
    "generation_mla_perf.parquet": _mla("mla_decode"),
    "mla_bmm_perf.parquet": _absorbed,
    "mla_context_module_perf.parquet": _latent("prefill"),
    "mla_generation_module_perf.parquet": _latent("decode"),
    "dsa_context_module_perf.parquet": _sparse("prefill"),
    "dsa_generation_module_perf.parquet": _sparse("decode"),
    **{
        f"dsv4_{kind}_{table}_module_perf.parquet": _compressed(kind, phase)
        for kind in ("csa", "hca")
        for table, phase in (("context", "prefill"), ("generation", "decode"))
    },
    "msa_context_module_perf.parquet": _blocks("prefill"),
    "msa_generation_module_perf.parquet": _blocks("decode"),
    "mhc_module_perf.parquet": _hyper,
    "gdn_perf.parquet": _recurrent("gdn"),
    "kda_perf.parquet": _recurrent("kda"),
    "mamba2_perf.parquet": _mamba2,
    "nccl_perf.parquet": _nccl,
    "custom_allreduce_perf.parquet": _custom_allreduce,
    "wideep_deepep_ll_perf.parquet": _deepep_low_latency,
    "wideep_deepep_normal_perf.parquet": _deepep_normal,
    "trtllm_alltoall_perf.parquet": _nvlink_domain,
}
