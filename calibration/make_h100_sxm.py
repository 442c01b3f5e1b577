"""Fit `profiles/h100_sxm` from the measured tables of aiconfigurator-core 0.12.0 and print held-out errors.

    pip install --no-deps aiconfigurator-core==0.12.0 && python calibration/make_h100_sxm.py

The package is needed here only. Rows that beat physics are left out by a rule fixed before any fit (see `physical`);
every fourth shape (sorted, index modulo 4) is held out, and the errors of the profile are those of held-out shapes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import yaml
from scipy.optimize import least_squares

from moesim.costs import shapes
from moesim.costs.form import Form
from moesim.costs.grid import ResidualGrid, write_grids
from moesim.costs.shapes import Demand
from moesim.models import Attention

Floats = npt.NDArray[np.float64]
PEAK_FLOPS = {"bf16": 989.4e12, "fp8": 1978.9e12}
PEAK_BANDWIDTH = 3.35e12
CLIP = 0.7  # a residual beyond a factor of 2 is taken for a kernel the form does not describe, and clipped
HERE = Path(__file__).resolve().parent
PACKAGE = Path(importlib.util.find_spec("aiconfigurator_core").submodule_search_locations[0])  # type: ignore[union-attr,index]


@dataclass(frozen=True)
class Rows:
    """One operator's measurements: demand, grid coordinates, seconds, and the shape each belongs to."""

    demand: Demand
    coordinates: tuple[Floats, Floats, Floats]
    seconds: Floats
    shape: npt.NDArray[np.int64]
    kernel: str


def table(path: str) -> dict[str, npt.NDArray[np.object_]]:
    """Columns of one Parquet table of the H100 system."""
    read = pq.read_table(PACKAGE / "systems/data/h100_sxm" / path)
    return {name: np.array(read[name].to_pylist()) for name in read.column_names}


def only(columns: dict, keep: npt.NDArray[np.bool_]) -> dict:  # type: ignore[type-arg]
    """The rows to keep."""
    return {name: values[keep] for name, values in columns.items()}


def shape_numbers(*columns: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Rows with equal columns share a number; numbers follow the sorted shapes."""
    return np.unique(np.stack([np.asarray(c, dtype=np.int64) for c in columns], axis=1), axis=0, return_inverse=True)[
        1
    ].ravel()


def gemm(dtype: str, kernel: str) -> Rows:
    """Dense GEMM, SGLang 0.5.14."""
    t = only(t0 := table("gemm/sglang/0.5.14/gemm_perf.parquet"), t0["kernel_source"] == kernel)
    m, n, k = (t[c].astype(np.int64) for c in ("m", "n", "k"))
    parts = [shapes.gemm(*one, dtype) for one in zip(m, n, k, strict=True)]
    demand = Demand(np.array([p.flops for p in parts], float), np.array([p.bytes for p in parts], float))
    return Rows(demand, (m * 1.0, n * 1.0, k * 1.0), t["latency"] / 1e3, shape_numbers(n, k), kernel)


def histogram(tokens: int, experts: int, topk: int, ep: int, distribution: str, draw: int) -> npt.NDArray[np.int64]:
    """Rows of each expert of the busiest rank, regenerated as the collector makes them (one of several draws)."""
    if distribution == "balanced":
        stride = -(-experts // topk)
        token, choice = np.meshgrid(np.arange(tokens), np.arange(topk), indexing="ij")
        expert = (token + choice * stride) % experts
        counts = np.bincount(expert.ravel(), minlength=experts)
    else:
        counts = power_law(tokens, experts, topk, float(distribution.rsplit("_", 1)[1]), draw)
    ranks = counts.reshape(ep, -1)
    return ranks[np.argmax(ranks.sum(axis=1))]


def power_law(tokens: int, experts: int, topk: int, exponent: float, draw: int) -> npt.NDArray[np.int64]:
    """Counts from a bounded power law scaled to tokens x topk, capped at `tokens`, the difference handed out evenly."""
    low, high = (1.0, 0.8 * tokens) if tokens * topk > experts else (0.01, 2.0)
    u = np.random.default_rng([draw, tokens, experts, topk]).random(experts)
    a = 1.0 - exponent
    values = (low**a + u * (high**a - low**a)) ** (1 / a)
    counts = np.minimum(np.rint(values / values.sum() * tokens * topk).astype(np.int64), tokens)
    for expert in np.resize(np.arange(experts), 64 * experts):
        missing = tokens * topk - int(counts.sum())
        if missing == 0:
            break
        step = int(np.sign(missing)) * max(abs(missing) // experts, 1)
        counts[expert] = np.clip(counts[expert] + step, 0, tokens)
    return counts


def experts(dtype: str, label: str, kernel: str) -> Rows:
    """The fused MoE operator of one rank, SGLang 0.5.14, gated experts, expert parallel only (no tensor parallel)."""
    t = table("moe/sglang/0.5.14/moe_perf.parquet")
    keep = (t["kernel_source"] == kernel) & (t["moe_dtype"] == label) & (t["moe_tp_size"] == 1)
    t = only(t, keep & (t["num_tokens"] <= 16384))
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size")
    T, h, i, k, E, ep = (t[c].astype(np.int64) for c in names)
    flops, moved, mean, active = (np.zeros(len(T)) for _ in range(4))
    for row in range(len(T)):
        draws = 1 if t["distribution"][row] == "balanced" else 5
        for draw in range(draws):
            counts = histogram(T[row], E[row], k[row], ep[row], t["distribution"][row], draw)
            demand = shapes.experts(counts, int(h[row]), int(i[row]), dtype, 3)
            flops[row] += float(demand.flops) / draws
            moved[row] += float(demand.bytes) / draws
            busy = max(np.count_nonzero(counts), 1)
            mean[row] += counts.sum() / busy / draws
            active[row] += busy / draws
    coordinates = (mean, active, 3.0 * h * i)
    return Rows(Demand(flops, moved), coordinates, t["latency"] / 1e3, shape_numbers(h, i, k, E), kernel)


def attention(phase: str, cache: str) -> Rows:
    """GQA with FlashAttention 3, SGLang 0.5.14, no window."""
    name = "context" if phase == "prefill" else "generation"
    t = table(f"attention/sglang/0.5.14/{name}_attention_perf.parquet")
    label = {"bf16": "bfloat16", "fp8": "fp8"}[cache]
    keep = (t["kernel_source"] == "fa3") & (t["window_size"] == 0) & (t["kv_cache_dtype"] == label)
    t = only(t, keep & (t["attn_dtype"] == "bfloat16") if phase == "prefill" else keep)
    b, s, step, heads, kv, width = (
        t[c].astype(np.int64) for c in ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim")
    )
    kv = np.where(kv == 0, heads, kv)
    parts = [
        shapes.attention(phase, q, c, n, Attention("gqa", int(H), int(K), int(w), int(w)), int(H), cache)
        for q, c, n, H, K, w in zip(s, step, b, heads, kv, width, strict=True)
    ]
    demand = Demand(np.array([float(p.flops) for p in parts]), np.array([float(p.bytes) for p in parts]))
    return Rows(
        demand, (b * 1.0, (s + step) * 1.0, heads * 1.0), t["latency"] / 1e3, shape_numbers(heads, kv, width), "fa3"
    )


def mla(phase: str, cache: str) -> Rows:
    """MLA core: TensorRT-LLM 1.3.0rc20 in prefill (SGLang's rows are three times too slow there), SGLang in decode."""
    name, where = ("context", "trtllm/1.3.0rc20") if phase == "prefill" else ("generation", "sglang/0.5.14")
    t = table(f"mla/{where}/{name}_mla_perf.parquet")
    t = only(t, t["kv_cache_dtype"] == {"bf16": "bfloat16", "fp8": "fp8"}[cache])
    b, s, step, heads = (t[c].astype(np.int64) for c in ("batch_size", "isl", "step", "num_heads"))
    shape = [Attention("mla", int(H), int(H), 192, 128, 1536, 512, 128, 64) for H in heads]
    parts = [
        shapes.attention(phase, q, c, n, a, a.num_heads, cache) for q, c, n, a in zip(s, step, b, shape, strict=True)
    ]
    demand = Demand(np.array([float(p.flops) for p in parts]), np.array([float(p.bytes) for p in parts]))
    return Rows(demand, (b * 1.0, (s + step) * 1.0, heads * 1.0), t["latency"] / 1e3, shape_numbers(heads, b), where)


def physical(rows: Rows, dtype: str) -> npt.NDArray[np.bool_]:
    """The rule: a row is kept unless it is faster than its bytes at peak bandwidth or its FLOPs at peak.

    Padding of rows is the model's, not physics', so FLOPs count for half; caches may hold what a small shape reads, so
    the bound on bytes holds above the 50 MB of L2.
    """
    memory = np.where(rows.demand.bytes > 50e6, rows.demand.bytes / PEAK_BANDWIDTH, 0.0)
    kept: npt.NDArray[np.bool_] = (rows.seconds >= memory) & (
        rows.seconds >= 0.5 * rows.demand.flops / PEAK_FLOPS[dtype]
    )
    return kept & np.isfinite(rows.seconds) & (rows.seconds > 0)


def subset(rows: Rows, keep: npt.NDArray[np.bool_]) -> Rows:
    """Some of the rows."""
    demand = Demand(rows.demand.flops[keep], rows.demand.bytes[keep])
    x, y, z = (c[keep] for c in rows.coordinates)
    return Rows(demand, (x, y, z), rows.seconds[keep], rows.shape[keep], rows.kernel)


def fit_form(rows: Rows, dtype: str) -> Form:
    """Four parameters by robust least squares on the logarithm."""
    hull = [(float(v.min()), float(v.max())) for v in rows.demand]

    def form(p: Floats) -> Form:
        launch, ef, eb, norm = np.exp(p)
        return Form(launch, ef * PEAK_FLOPS[dtype], eb * PEAK_BANDWIDTH, 1 + norm, hull[0], hull[1])

    def error(p: Floats) -> Floats:
        return np.log(form(p).seconds(rows.demand) / rows.seconds)

    start = np.log([max(float(rows.seconds.min()) * 0.9, 1e-6), 0.6, 0.7, 2.0])
    low, high = np.log([1e-7, 0.05, 0.05, 0.01]), np.log([1e-3, 1.0, 1.0, 20.0])
    return form(least_squares(error, start, loss="soft_l1", f_scale=0.1, bounds=(low, high)).x)


def fit_grid(rows: Rows, form: Form) -> ResidualGrid:
    """Median residual around each power of two, clipped; empty nodes hold 0."""
    residual = np.clip(np.log(rows.seconds / form.seconds(rows.demand)), -CLIP, CLIP)
    logs = [np.rint(np.log2(np.maximum(c, 1e-9))) for c in rows.coordinates]
    axes = [np.unique(values) for values in logs]
    index = [np.searchsorted(axis, values) for axis, values in zip(axes, logs, strict=True)]
    flat = np.ravel_multi_index(tuple(index), tuple(len(axis) for axis in axes))
    values = np.zeros(int(np.prod([len(axis) for axis in axes])))
    order = np.argsort(flat, kind="stable")
    cells, first = np.unique(flat[order], return_index=True)
    for cell, group in zip(cells, np.split(residual[order], first[1:]), strict=True):
        values[cell] = np.median(group)
    return ResidualGrid((axes[0], axes[1], axes[2]), values.reshape([len(axis) for axis in axes]))


def errors(rows: Rows, form: Form, grid: ResidualGrid) -> Floats:
    """Relative errors of the prediction."""
    return form.seconds(rows.demand) * grid.at(*rows.coordinates) / rows.seconds - 1


def operator(name: str, dtype: str, make: Callable[[], Rows]) -> tuple[dict[str, object], ResidualGrid, Floats]:
    """Fit one operator: its YAML section, its grid, and its held-out log errors."""
    rows = make()
    kept = physical(rows, dtype)
    total, rows = len(kept), subset(rows, kept)
    held = rows.shape % 4 == 3
    train, test = subset(rows, ~held), subset(rows, held)
    form = fit_form(train, dtype)
    wrong = errors(test, form, fit_grid(train, form))
    final = fit_form(rows, dtype)
    median, p90 = (float(np.quantile(np.abs(wrong), q)) for q in (0.5, 0.9))
    print(
        f"{name:22s} {len(rows.seconds):6d} of {total:6d} rows obey physics;"
        f" held-out |error| {median:6.1%} / {p90:6.1%} (p90)"
        f"  launch {final.launch * 1e6:5.1f} us, {final.flops_per_second / 1e12:6.0f} TFLOP/s,"
        f" {final.bytes_per_second / 1e9:5.0f} GB/s, p {final.norm:4.1f}"
    )
    section = {
        "launch": f"{final.launch * 1e6:.3f} us",
        "flops_per_second": f"{final.flops_per_second / 1e12:.2f} TFLOP/s",
        "bytes_per_second": f"{final.bytes_per_second / 1e9:.1f} GB/s",
        "norm": round(float(final.norm), 3),
        "flops_hull": [float(f"{v:.4g}") for v in final.flops_hull],
        "bytes_hull": [float(f"{v:.4g}") for v in final.bytes_hull],
        "basis": "fitted",
        "rows": len(rows.seconds),
        "heldout_median_abs_error": round(median, 4),
        "heldout_p90_abs_error": round(p90, 4),
        "kernel": rows.kernel,
    }  # fmt: skip
    return section, fit_grid(rows, final), np.log1p(np.maximum(wrong, -0.99))


OPERATORS: dict[str, tuple[str, str, Callable[[], Rows]]] = {
    "gemm.bf16": ("gemm", "bf16", lambda: gemm("bf16", "sglang_torch_linear")),
    "gemm.fp8": ("gemm", "fp8", lambda: gemm("fp8", "sglang_deepgemm_gemm_nt_f8f8bf16")),
    "experts.bf16": ("grouped_gemm", "bf16", lambda: experts("bf16", "bfloat16", "sglang_fused_moe_triton")),
    "experts.fp8": ("grouped_gemm", "fp8", lambda: experts("fp8", "fp8_block", "sglang_fused_moe_triton")),
    "gqa_prefill.bf16": ("attention", "bf16", lambda: attention("prefill", "bf16")),
    "gqa_decode.bf16": ("attention", "bf16", lambda: attention("decode", "bf16")),
    "gqa_decode.fp8": ("attention", "bf16", lambda: attention("decode", "fp8")),
    "mla_prefill.bf16": ("attention", "bf16", lambda: mla("prefill", "bf16")),
    "mla_decode.bf16": ("attention", "bf16", lambda: mla("decode", "bf16")),
    "mla_decode.fp8": ("attention", "bf16", lambda: mla("decode", "fp8")),
}


def main() -> None:
    """Fit all operators and write profiles/h100_sxm.yaml and .parquet."""
    sections, grids, logs = {}, {}, {}  # type: ignore[var-annotated]
    for name, (family, dtype, make) in OPERATORS.items():
        sections[name], grids[name], wrong = operator(name, dtype, make)
        logs.setdefault(family, []).append(wrong)
    # one draw per family and run stands for the error that a family's shapes share; 1.4826 MAD is a robust sigma
    families = {f: round(float(1.4826 * np.median(np.abs(np.concatenate(w)))), 4) for f, w in logs.items()}
    constants = yaml.safe_load((HERE / "h100_sxm_constants.yaml").read_text())
    families.update(constants.pop("families"))
    document = {**constants, "operators": sections, "families": families}
    text = yaml.safe_dump(document, sort_keys=False, width=110)
    (HERE / "profiles" / "h100_sxm.yaml").write_text(text)
    write_grids(HERE / "profiles" / "h100_sxm.parquet", grids)


if __name__ == "__main__":
    main()
