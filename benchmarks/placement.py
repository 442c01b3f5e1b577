"""Placement beside DeepSeek's EPLB, bar by bar: `python -m benchmarks.placement [balance ... limits]`.

Inputs are the made-up cases in `benchmarks/data`: strategies see `train` only, `test` and `drift` are for judging.
Seconds are CPU seconds of this process after the compiled functions were loaded. Every row shows its bar.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import placement_trust as trust
from benchmarks.memory import peak_bytes
from benchmarks.placement_transitions import transitions
from moesim.layout import Placement
from moesim.placement import PlacementProblem, Solution, StepClock, Windows, dispatch, judge, objectives, solve
from moesim.studies import load
from moesim.studies.build import build

CASES = Path(__file__).parent / "data"
EXPERTS, GROUPS, WINDOW = 256, 8, 2048
TOY = [600, 560, 120, 120, 20, 10, 10, 10]  # example of FlashLB (vllm-project/vllm-ascend)


def row(what: str, value: str, bar: str = "") -> None:
    """One line of the report."""
    print(f"{what:66} {value:>34}  {bar}", flush=True)


def case(name: str) -> Windows:
    """`train`, `test` or `drift` of the DeepSeek-V3 case."""
    with np.load(CASES / "dsv3.npz") as arrays:
        return Windows.of_tokens(name, arrays[name], EXPERTS, WINDOW)


def problem(train: Windows, gpus: int, redundant: int, **options: object) -> PlacementProblem:
    """GPUs in nodes of eight, slots spread evenly."""
    slots = np.full(gpus, (train.counts.shape[2] + redundant) // gpus)
    return PlacementProblem(train, np.arange(gpus) // 8, slots, groups=GROUPS, **options)  # type: ignore[arg-type]


def per_layer(one: PlacementProblem, found: Solution) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Max/mean of each layer on the windows planned on."""
    return one.objective.evaluate(one, found.placement, one.train)


def timed(one: PlacementProblem, strategy: str) -> tuple[Solution, float]:
    """A solution and its CPU seconds."""
    began = time.process_time()
    found = solve(one, strategy)
    return found, time.process_time() - began


def balance() -> None:
    """Total load of `train`: gaps to a certified bound without and with replicas, weighted dispatch, a toy."""
    total = case("train").merged()
    solve(problem(total, 8, 0), "lpt")  # loads the compiled functions
    for gpus in (8, 16, 32, 64):
        found, seconds = timed(problem(total, gpus, 0), "lpt")
        row(f"no replicas, {gpus} GPUs: gap, CPU s", f"{found.gap:.4%}, {seconds:.2f}", "<= 0.1 %, <= 2 s")
    for gpus in (8, 16, 32, 64):
        one = problem(total, gpus, gpus)
        (found, seconds), eplb = timed(one, "lpt"), solve(one, "eplb")
        worse = int((per_layer(one, found) > per_layer(one, eplb) * (1 + 1e-9)).sum())
        text = f"{found.gap:.3%}, {seconds:.2f}, {worse} (EPLB {eplb.gap:.2%})"
        bar = f"<= {0.5 if gpus <= 32 else 1.5} %, <= 3 s, 0"
        row(f"redundant {gpus} on {gpus} GPUs: gap, CPU s, layers worse than EPLB", text, bar)
    found = solve(problem(total, 128, 128, dispatch=dispatch.find("weighted")), "alias_weighted")
    row("weighted split, redundant 128 on 128 GPUs: max/mean", f"{found.objective:.4f}", "1.000")
    one = problem(Windows("toy", np.array([[TOY]])), 8, 8)
    mean = sum(TOY) / 8
    found, eplb = solve(one, "lpt"), solve(one, "eplb")
    text = f"{found.objective * mean:.2f}, {found.bound * mean:.2f} (EPLB {eplb.objective * mean:.0f})"
    row("FlashLB's toy: slowest GPU, lower bound", text, "196.67, proved (EPLB 232)")


def held_out() -> None:
    """Expected peak on windows that no strategy saw; with per-batch LP dispatch on every tenth layer."""
    train, judged = case("train"), [case("test"), case("drift")]
    names = ("multiwindow", "flash", "lpt", "eplb_hierarchical")
    for gpus in (32, 64):
        one = problem(train, gpus, gpus)
        _compare(one, judged, f"redundant {gpus}: max/mean", "2 %", names)
        tenth = [_some_layers(windows, slice(None, None, 10)) for windows in (train, *judged)]
        one = problem(tenth[0], gpus, gpus, dispatch=dispatch.find("lplb"))
        _compare(one, tenth[1:], f"redundant {gpus}, LP a batch: max/mean", "4 %", ("multiwindow",))


def _some_layers(windows: Windows, which: slice) -> Windows:
    assert windows.tokens is not None
    return replace(windows, counts=windows.counts[:, which], tokens=windows.tokens[which])


def _compare(one: PlacementProblem, judged: list[Windows], what: str, bar: str, names: tuple[str, ...]) -> None:
    """EPLB's value first, then each strategy's and how far it is below."""
    base = solve(one, "eplb", heldout=judged)
    row(f"{what}, eplb: train; test, drift", _values(base))
    for name in names:
        found = solve(one, name, heldout=judged)
        below = ", ".join(f"{found.heldout[w.name] / base.heldout[w.name] - 1:+.1%}" for w in judged)
        row(f"{what}, {name}", f"{_values(found)} ({below})", f">= {bar} below EPLB" if name == names[0] else "")


def _values(found: Solution) -> str:
    return f"{found.objective:.3f}; " + ", ".join(f"{value:.3f}" for value in found.heldout.values())


def clock(schedule: str) -> StepClock:
    """A prefill step of DeepSeek-V3 on 8 nodes, DeepEP's normal kernels, 4,096 tokens a GPU in blocks of 2,048."""
    changes = (
        "cluster.nodes=8", "parallel.data_parallel_size=64", "parallel.expert_parallel_size=64",
        "parallel.tensor_parallel_size=1", "experts.redundant=0", "experts.placement=contiguous",
        "batch.tokens_per_gpu=4096", "batch.context=2048", "comm.dispatch=deepep_normal",
        f"overlap.schedule={schedule}",
    )  # fmt: skip
    built = build(load("dsv3-prefill-ep32", changes), 0)
    return StepClock(built.plan, built.batches[0], 2048)


def step() -> None:
    """Simulated step time on held-out windows, without and with two-batch overlap."""
    train, test = case("train"), case("test")
    clocks = {schedule: clock(schedule) for schedule in ("sequential", "two_batch")}
    for redundant in (0, 64):
        one = problem(train, 64, redundant)
        names = ("eplb", "eplb_hierarchical", "co_activation", "multiwindow")
        placements = {name: solve(one, name).placement for name in names}
        for schedule, played in clocks.items():
            _step_rows(f"step, redundant {redundant}, {schedule}", placements, played, train, test)


def _step_rows(what: str, placements: dict[str, Placement], played: StepClock, train: Windows, test: Windows) -> None:
    """Each placement's step on `test`; step_time is what the strategy of that name picks, which plays `train`."""
    planned = {name: played.seconds(placement, train) for name, placement in placements.items()}
    seconds = {name: played.seconds(placement, test) for name, placement in placements.items()}
    best = min(("eplb", "eplb_hierarchical"), key=seconds.__getitem__)
    for name, taken in seconds.items():
        row(f"{what}: {name}, beside {best}", f"{taken:.4f} s ({taken / seconds[best] - 1:+.1%})")
    picked, fastest = min(planned, key=planned.__getitem__), min(seconds, key=seconds.__getitem__)
    text = f"{picked} ({seconds[picked] / seconds[best] - 1:+.1%})"
    row(f"{what}: step_time picks; fastest on held-out windows: {fastest}", text, ">= 5 % below")


def online() -> None:
    """EPLB stands for `train`; the first half of `drift` is seen, EPLB reruns or 3 % of the slots move."""
    seen, later = case("drift").hold_out(0.5)
    for gpus in (32, 64):
        one = problem(case("train"), gpus, gpus)
        now = solve(one, "eplb").placement
        again = replace(one, train=seen, previous=now)
        budget = int(0.03 * one.slots * one.layers)
        before = judge(again, now, "before", [later])
        rerun = solve(again, "eplb", heldout=[later])
        found = solve(replace(again, move_budget=budget), "incremental", heldout=[later])
        share = (before.objective - found.objective) / (before.objective - rerun.objective)
        moved = (found.moves or 0) / one.slots / one.layers
        row(
            f"online, {gpus} GPUs: share of the rerun's gain, slots moved",
            f"{share:.0%}, {moved:.2%}",
            ">= 50 %, <= 3 %",
        )
        text = " -> ".join(f"{value.heldout['held out']:.3f}" for value in (before, rerun, found))
        row(f"online, {gpus} GPUs: later windows before -> rerun -> 3 % moved", text)


def memory() -> None:
    """94 layers of 128 experts on 128 GPUs, 200,000 tokens of uint16 lists of 8."""
    random = np.random.default_rng(0)
    tokens = np.empty((94, 200_000, 8), dtype=np.uint16)
    for layer in tokens:
        start = random.integers(0, 128, (len(layer), 1))
        layer[:] = (start + np.arange(8) * random.integers(1, 16, (len(layer), 1))) % 128
    train = Windows.of_tokens("train", tokens, 128, WINDOW)
    one = PlacementProblem(train, np.arange(128) // 8, np.full(128, 2))
    solve(one, "multiwindow", time_limit=60)
    objectives.find("nodes_touched").evaluate(one, solve(one, "lpt").placement, train)
    peak = peak_bytes() / 1e9
    row("94 x 128 experts, 128 GPUs, 200k tokens: peak memory so far", f"{peak:.2f} GB", "<= 1 GB (run alone)")


BARS: dict[str, Callable[[], None]] = {
    "memory": memory, "balance": balance, "held_out": held_out, "online": online, "step": step,
    "transitions": transitions, "recordings": trust.recordings, "dispatch": trust.dispatch,
    "overlap": lambda: trust.overlap(clock("two_batch")), "history": trust.history, "limits": trust.limits,
}  # fmt: skip


def main() -> None:
    """The named bars, or all of them; memory first, since it prints the peak of the process."""
    for name in sys.argv[1:] or BARS:
        BARS[name]()


if __name__ == "__main__":
    main()
