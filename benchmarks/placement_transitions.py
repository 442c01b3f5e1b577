"""Moves between layers and nodes touched: `python -m benchmarks.placement transitions`.

CPU seconds of this process, the count of moves and the bounds included.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from moesim.placement import PlacementProblem, Solution, Windows, objectives, solve

CASES, EXPERTS = Path(__file__).parent / "data", {"dsv3": 256, "mixtral": 8}


def windows(name: str) -> tuple[Windows, list[Windows]]:
    """(train, [test, drift]) in windows of 2,048 tokens."""
    with np.load(CASES / f"{name}.npz") as file:
        parts = [Windows.of_tokens(part, file[part], EXPERTS[name], 2048) for part in ("train", "test", "drift")]
    return parts[0], parts[1:]


def timed(problem: PlacementProblem, strategy: str, heldout: list[Windows]) -> tuple[Solution, float]:
    """A solution and the CPU seconds that it took, bounds and held-out values included."""
    begun = time.process_time()
    return solve(problem, strategy, heldout=heldout), time.process_time() - begun


def row(what: str, value: str, bar: str = "") -> None:
    """One line of the report."""
    print(f"{what:58} {value:>52}  {bar}", flush=True)


def show(what: str, solution: Solution, seconds: float, bar: str = "") -> None:
    """Objective, bound, held-out values, CPU seconds."""
    later = " ".join(f"{name} {value:.4f}" for name, value in solution.heldout.items())
    bound = f"bound {solution.bound:.4f} ({solution.bound_kind})" if solution.bound else "bound none"
    row(what, f"{solution.objective:.4f} {bound} {later} {seconds:.1f} s", bar)


def cross_traffic() -> None:
    """DeepSeek-V3's size on 8 GPUs, load cap 1.05."""
    train, later = windows("dsv3")
    problem = PlacementProblem(
        train, np.zeros(8, dtype=np.int64), np.full(8, 32), objective=objectives.find("transitions"), load_cap=1.05
    )
    base, seconds = timed(problem, "affinity_hungarian", later)
    show("58 x 256, 8 GPUs, cap 1.05: affinity_hungarian (MoETuner-like)", base, seconds)
    best, seconds = timed(problem, "affinity_bcd", later)
    show("58 x 256, 8 GPUs, cap 1.05: affinity_bcd", best, seconds, "<= 15 s")
    row("less cross traffic than MoETuner-like", f"{1 - best.objective / base.objective:.2%}", ">= 7 %")
    for name, value in best.heldout.items():
        row(f"  on {name}", f"{1 - value / base.heldout[name]:.2%}")


def proved() -> None:
    """Mixtral, exact chains."""
    train, later = windows("mixtral")
    for ranks in (2, 4, 8):
        problem = PlacementProblem(
            train, np.zeros(ranks, dtype=np.int64), np.full(ranks, 8 // ranks), objective=objectives.find("transitions")
        )
        solution, seconds = timed(problem, "exact_chain_dp", later)
        show(f"mixtral, {ranks} GPUs: exact_chain_dp", solution, seconds, "proved, <= 10 s" if ranks <= 4 else "")


def nodes_touched() -> None:
    """Distinct nodes of a token on 8 nodes, and the expected peak that is paid for it."""
    train, later = windows("dsv3")
    for strategy in ("eplb", "multiwindow", "co_activation"):
        problem = PlacementProblem(train, np.arange(64) // 8, np.full(64, 5), objectives.find("nodes_touched"))
        solution, seconds = timed(problem, strategy, later)
        show(f"nodes a token, 8 nodes, 64 redundant: {strategy}", solution, seconds)


def transitions() -> None:
    """All of it."""
    for part in (cross_traffic, proved, nodes_touched):
        part()
