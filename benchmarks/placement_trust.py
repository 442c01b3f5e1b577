"""What an operator has to trust: recordings, the engine's dispatch, two resources, history, limits.

`python -m benchmarks.placement recordings dispatch overlap history limits`; every row shows its bar.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_bytes
from moesim.placement import PlacementProblem, StepClock, Windows, judge, plan
from moesim.placement.dispatch import find as find_dispatch
from moesim.placement.online import Policy, replay

CASES, EXPERTS, WINDOW = Path(__file__).parent / "data", 256, 2048


def row(what: str, value: str, bar: str = "") -> None:
    """One line of the report."""
    print(f"{what:66} {value:>34}  {bar}", flush=True)


def case(*names: str) -> Windows:
    """Parts of the DeepSeek-V3 case, one after the other, each a recording of its own."""
    with np.load(CASES / "dsv3.npz") as arrays:
        parts = [Windows.of_tokens(name, arrays[name], EXPERTS, WINDOW) for name in names]
    if len(parts) == 1:
        return parts[0]
    group = np.concatenate([np.full(part.num_windows, number) for number, part in enumerate(parts)])
    return Windows.joined("+".join(names), parts, group)


def problem(train: Windows, gpus: int, redundant: int, **options: object) -> PlacementProblem:
    """GPUs in nodes of eight."""
    slots = np.full(gpus, (train.counts.shape[2] + redundant) // gpus)
    return PlacementProblem(train, np.arange(gpus) // 8, slots, groups=8, **options)  # type: ignore[arg-type]


def recordings() -> None:
    """Drift windows, planned on train and test as separate recordings, beside EPLB on their sum."""
    both, drift = case("train", "test"), case("drift")
    for gpus in (32, 64):
        values = []
        for name in ("eplb", "multiwindow"):
            one = problem(both, gpus, gpus)
            values.append(judge(one, plan(one, name).placement, name, [drift]).heldout["drift"])
        text = f"{values[1]:.4f} / {values[0]:.4f} = {values[1] / values[0]:.4f}"
        row(f"recordings, redundant {gpus}: drift, multiwindow over EPLB on the sum", text, "<= 0.93")


def dispatch() -> None:
    """Test windows under SGLang's dispatch, planned on train, 32 GPUs on 4 nodes."""
    one, test = problem(case("train"), 32, 32, dispatch=find_dispatch("sglang")), case("test")
    values = {}
    for name in ("eplb", "multiwindow"):
        values[name] = judge(one, plan(one, name).placement, name, [test]).heldout["test"]
    even = plan(problem(case("train"), 32, 32), "multiwindow").placement
    text = f"{values['multiwindow']:.4f} / {values['eplb']:.4f} = {values['multiwindow'] / values['eplb']:.4f}"
    row("SGLang's dispatch, 32 GPUs: test, multiwindow over EPLB", text, "<= 0.93")
    row("  planned with even shares instead", f"{judge(one, even, 'even', [test]).heldout['test']:.4f}")


def overlap(clock: StepClock) -> None:
    """Step time with two-batch overlap on 8 nodes, mean over held-out test and drift windows."""
    train, later = case("train"), [case("test"), case("drift")]
    one, seconds = problem(train, 64, 64, clock=clock), {}
    for name in ("eplb", "multiwindow", "two_resources"):
        placement = plan(one, name).placement
        seconds[name] = float(np.mean([clock.seconds(placement, windows) for windows in later]))
    found = [clock.ceilings(plan(one, "eplb").placement, windows) for windows in later]
    ideal = float(np.mean([ceiling.ideal for ceiling in found]))
    for name, taken in seconds.items():
        bar = "<= EPLB and <= multiwindow" if name == "two_resources" else ""
        share = (seconds["eplb"] - taken) / (seconds["eplb"] - ideal)
        row(f"two-batch overlap, 8 nodes: {name}, share of the ceiling", f"{taken:.4f} s, {share:.1%}", bar)


def history() -> None:
    """Four regimes in ten windows (benchmarks/regimes.py): the mean over windows served after a decision."""
    with np.load(CASES / "regimes.npz") as arrays:
        windows = Windows("regimes", arrays["counts"].astype(np.int64))
    one = problem(windows.only(0, 1, "first"), 32, 32)
    start = plan(one, "eplb").placement
    slots, means = start.num_slots * start.num_layers, {}
    ways = {
        "eplb on the last window": Policy(1, 1, 0.0, None, "eplb"),
        "incremental on the history": Policy(1, None, 0.0, 0.05, "incremental"),
        "multiwindow anew on the history": Policy(1, None, 0.0, None, "multiwindow"),
    }
    for way, policy in ways.items():
        done = replay(policy, one, start, windows)
        means[way], most = float(done.objective[1:].mean()), max(change.decision.moves for change in done.changes)
        ratio = means[way] / means["eplb on the last window"]
        bar = "<= 0.90, <= 5 % moved" if way.startswith("incremental") else ""
        row(f"history: {way}, moved at most", f"{means[way]:.4f} ({ratio:.3f}), {most / slots:.1%}", bar)


def limits() -> None:
    """Large problems: CPU seconds of search and bound, and the bound."""
    random = np.random.default_rng(0)
    for layers, experts, gpus, redundant in ((58, 256, 320, 64), (61, 384, 144, 48)):
        shares = random.lognormal(0, 0.9, (1, layers, experts)) * random.lognormal(0, 0.3, (8, layers, experts))
        one = problem(Windows("made up", (shares * 1000).astype(np.int64)), gpus, redundant)
        began = time.process_time()
        found = judge(one, plan(one, "multiwindow").placement, "multiwindow")
        spent = time.process_time() - began
        text = f"{spent:.1f} s, {found.objective:.4f} / {found.bound:.4f}, {found.gap:.2%}"
        row(
            f"{layers} x {experts} on {gpus} GPUs, 8 windows: CPU s, value / bound, gap", text, "<= 60 s, <= 5 % at 144"
        )
        total = one.with_train(one.train.merged())
        packed = judge(total, plan(total, "lpt").placement, "lpt")
        row("  on the total: gap to the bound", f"{packed.gap:.2%}")
    peak = peak_bytes() / 1e9
    row("  peak memory so far", f"{peak:.2f} GB", "<= 1 GB (run alone)")
