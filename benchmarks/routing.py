"""What routing traces cost, and how well the load generator meets files it never saw: `python -m benchmarks.routing`.

CPU seconds of this process, the median of three where it says so. Bars are those of the project's routing issue.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_bytes
from moesim.models import load_model
from moesim.routing import Replay, RoutingTrace, Sampled, Transplant, open_trace, read_trace, write_trace
from moesim.routing.importers import REGISTRY, Options
from moesim.routing.sources.sampled import place_shares
from moesim.routing.stats.summary import summarise
from moesim.routing.synth.fit import fitted_statistics, workload_length
from moesim.routing.synth.generate import synthesise
from moesim.routing.synth.knobs import Knobs
from moesim.routing.synth.shares import contiguous_imbalance
from moesim.routing.synth.statistics import load_statistics, statistics_names

TOKENS = 21_552  # times 58 layers times top-8: ten million entries
MODEL = "deepseek-ai/DeepSeek-V3"


def seconds(function: Callable[[], object], repeats: int = 1) -> float:
    """CPU seconds of a call, the median of `repeats`."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return float(np.median(taken))


def row(what: str, value: str, bar: str = "") -> None:
    """One line of the report."""
    print(f"{what:62} {value:>14}  {bar}", flush=True)


def ten_million_entries(folder: Path) -> RoutingTrace:
    """A synthetic DeepSeek-V3 trace: imported, measured, written, windowed and counted."""
    model = load_model(MODEL)
    knobs = Knobs.model_validate(
        {"tokens": TOKENS, "popularity": {"statistics": "decode_in2000out100"}, "affinity": 0.3, "locality": 0.2}
    )
    trace = synthesise(knobs, model, 0)
    form, given, native = REGISTRY["vllm-returned"], folder / "given", folder / "native.parquet"
    form.write(trace, given)
    began = time.process_time()
    imported = form.read(given, Options(model))
    assert isinstance(imported, RoutingTrace)
    write_trace(imported, native)
    import_s = time.process_time() - began
    stats_s = seconds(lambda: summarise(read_trace(native)))
    row("10 M entries: import and write, read and statistics (CPU s)", f"{import_s:.2f} + {stats_s:.2f}", "<= 10 s")
    row("peak memory so far", f"{peak_bytes() / 1e9:.2f} GB", "<= 1.5 GB")
    ids_only(trace, folder)
    opened = open_trace(native)
    row("read a window of 100 tokens (CPU ms)", f"{seconds(lambda: opened.window(9000, 9100), 3) * 1e3:.1f}")
    opened.counts(0, 1)
    counted = seconds(lambda: opened.counts(100, TOKENS - 100), 3) / (TOKENS - 200) / 58
    row("counts of a window from the file (us a token-layer)", f"{counted * 1e6:.4f}", "<= 5 us")
    trace.counts(0, 1)
    counted = seconds(lambda: trace.counts(100, TOKENS - 100), 3) / (TOKENS - 200) / 58
    row("counts of a window in memory (us a token-layer)", f"{counted * 1e6:.4f}", "<= 5 us")
    return trace


def ids_only(trace: RoutingTrace, folder: Path) -> None:
    """Bytes on disk of one id, all row columns included."""
    write_trace(trace, folder / "ids.parquet")
    each = (folder / "ids.parquet").stat().st_size / trace.expert.size
    row("bytes on disk an entry, all columns of the rows included", f"{each:.3f}", "<= 2.2")


def lookups(trace: RoutingTrace) -> None:
    """A layer of 8192 tokens."""
    model, request, position = load_model(MODEL), np.arange(8192), np.full(8192, 2000)
    small = read_trace(Path("workloads/routing/tiny-moe.parquet"))
    built: list[Sampled] = []
    row(
        "build Sampled for 58 layers (CPU s)",
        f"{seconds(lambda: built.append(Sampled('prefill_in2048', model, 0))):.2f}",
    )
    sources = {"Replay": Replay(trace, model, 0), "Transplant": Transplant(small, model, 0), "Sampled": built[0]}
    for name, source in sources.items():
        taken = seconds(lambda s=source: [s.experts(n, request, position) for n in range(58)], 3) / 58  # type: ignore[misc]
        row(f"{name}: 8192 tokens a layer (CPU ms)", f"{taken * 1e3:.3f}", "<= 2 ms" if name == "Replay" else "")


def generator() -> None:
    """Each file of the statistics, predicted from all others of its phase."""
    print("\nload generator on held-out files: mean sigma, its spread, imbalance at 8, 32 and 128 ranks, correlations")
    print("bars: 5 %, 25 %, 10 % each, 0.1 each")
    for name in statistics_names():
        held_out = load_statistics(name)
        others = [load_statistics(n) for n in statistics_names() if n.startswith(name.split("_")[0]) and n != name]
        shares = place_shares(fitted_statistics(others, workload_length(name), 0), 58, 256, 0)
        sigma, between = np.log(shares).std(axis=1), np.corrcoef(np.log(shares))
        errors = [sigma.mean() / held_out.sigma.mean() - 1, sigma.std() / held_out.sigma.std() - 1]
        errors += [contiguous_imbalance(shares, r).mean() / held_out.imbalance[r].mean() - 1 for r in (8, 32, 128)]
        neighbours = np.diagonal(between, 1).mean() - held_out.neighbour_correlation.mean()
        all_pairs = (between.sum() - 58) / (58 * 57) - held_out.mean_correlation
        text = " ".join(f"{error:+7.1%}" for error in errors)
        missed = any(abs(e) > bar for e, bar in zip(errors, (0.05, 0.25, 0.1, 0.1, 0.1), strict=True))
        print(f"{name:24} {text}  {neighbours:+.3f} {all_pairs:+.3f}{'  MISSED' if missed else ''}")


def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        trace = ten_million_entries(Path(folder))
    lookups(trace)
    generator()


if __name__ == "__main__":
    main()
