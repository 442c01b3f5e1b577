"""Mixed-integer programs: what they find is what brute force and dynamic programming find, and a limit is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput, DoesNotFit
from moesim.placement import PlacementProblem, Windows, objectives, solve
from moesim.placement.chain import Chain
from moesim.placement.loads import imbalance
from moesim.placement.search import milp
from moesim.placement.search.partitions import deals
from moesim.placement.search.programs import balance_program, chain_program
from moesim.placement.strategies import ilp

NODE = np.zeros(3, dtype=np.int64)


def chain(seed: int, experts: int, nodes: list[int], slots: list[int], **limits: object) -> PlacementProblem:
    random = np.random.default_rng(seed)
    topic, weight = random.integers(0, experts, 60), random.dirichlet(np.full(experts, 1.5), experts)
    tokens = [[random.choice(experts, 2, replace=False, p=weight[t]) for t in topic] for _ in range(3)]
    windows = Windows.of_tokens("train", np.array(tokens, dtype=np.uint8), experts, 30)
    asked: dict[str, Any] = {"objective": objectives.find("transitions"), **limits}
    return PlacementProblem(windows, np.array(nodes), np.array(slots), **asked)


@pytest.mark.parametrize(
    ("experts", "nodes", "slots", "limits"),
    [
        (6, [0, 0, 0], [2, 2, 2], {}),
        (4, [0, 1, 1], [2, 1, 1], {}),
        (6, [0, 0], [3, 3], {"load_cap": 1.2}),
        (4, [0, 0, 1, 1], [1, 1, 1, 1], {"objective": objectives.find("rail_transitions")}),
    ],
)
def test_the_program_of_moves_finds_the_optimum_of_dynamic_programming(
    experts: int, nodes: list[int], slots: list[int], limits: dict[str, object]
) -> None:
    one = chain(5, experts, nodes, slots, **limits)
    exact, program = solve(one, "exact_chain_dp"), solve(one, "ilp", time_limit=60)
    assert program.objective == pytest.approx(exact.objective) and program.bound_kind.startswith(
        ("dual", "spec", "card")
    )
    assert program.bound == pytest.approx(exact.objective, rel=1e-4) and program.notes == ()


def test_where_all_moves_are_alike_the_relaxation_already_proves_the_optimum() -> None:
    """Whatever stands where, each of the 6 experts of a layer has 2 successors on its rank: 12 of 36 moves stay.
    Without what stay variables of an expert may be together, halves of experts everywhere would keep all.
    """
    one = chain(5, 6, [0, 0, 0], [2, 2, 2])
    alike = replace(Chain.of(one), flow=np.ones((one.layers - 1, 6, 6), dtype=np.float32))
    program, _ = chain_program(one, alike, False)
    program.whole = [False] * len(program.whole)
    found = milp.solve(program, 60)
    assert found.values is not None and program.value(found.values) == pytest.approx(-12 * (one.layers - 1))


def test_without_replicas_the_makespan_of_eight_experts_on_three_devices_is_proved() -> None:
    load = np.array([[[60, 56, 12, 12, 7, 5, 4, 2]], [[6, 5, 12, 12, 7, 5, 40, 20]]])
    one = PlacementProblem(Windows("train", load), NODE, np.array([3, 3, 2]))
    program = solve(one, "ilp", time_limit=60)
    brute = min(
        float(imbalance(one, one.place_ranks(deal[None]), one.train).mean()) for deal in deals(one.slots_of_rank)
    )
    assert program.objective == pytest.approx(brute) and program.bound == pytest.approx(brute, rel=1e-5)


def test_the_choice_of_replicas_is_what_brute_force_finds() -> None:
    one = PlacementProblem(Windows("train", np.array([[[60, 20, 12, 7]]])), NODE, np.array([2, 2, 2]))
    program = solve(one, "ilp", time_limit=60)
    rows = [r for r in product(range(4), repeat=6) if len(set(r)) == 4 and r[0] < r[1] and r[2] < r[3] and r[4] < r[5]]
    assert program.objective == pytest.approx(min(float(imbalance(one, one.place([r]), one.train)[0, 0]) for r in rows))
    assert "different ranks" in program.notes[-1]


@pytest.mark.skipif(shutil.which("cbc") is None, reason="CBC is not installed")
def test_cbc_agrees_with_highs() -> None:
    one = chain(5, 6, [0, 0], [3, 3])
    program, _ = chain_program(one, Chain.of(one), True)
    highs, cbc = milp.solve(program, 60), milp.solve(program, 60, "cbc")
    assert highs.optimal and cbc.optimal and cbc.bound == pytest.approx(highs.bound, rel=1e-5)


def test_moetuner_balances_first_and_is_never_below_the_one_program() -> None:
    one = chain(6, 6, [0, 0, 0], [2, 2, 2])
    assert solve(one, "moetuner", time_limit=60).objective >= solve(one, "exact_chain_dp").objective - 1e-9


def test_polish_is_no_worse_than_descent() -> None:
    one = chain(7, 8, [0, 0], [4, 4], load_cap=1.2)
    assert solve(one, "ilp_polish", time_limit=60).objective <= solve(one, "affinity_bcd").objective + 1e-9


def hard(size: int = 60) -> milp.Program:
    """Equal numbers of odd weights to two sides: no bound closes quickly."""
    random, program = np.random.default_rng(0), milp.Program()
    for _ in range(5):
        weight = random.integers(10**5, 10**6, size).astype(float)
        if not program.cost:
            x, gap = program.columns(size), program.columns(5, upper=np.inf, whole=False)
        column = int(gap[len(program.rows) // 2])
        program.cost[column] = 1.0
        program.row([*x, column], [*weight, -1.0], most=weight.sum() / 2)
        program.row([*x, column], [*weight, 1.0], least=weight.sum() / 2)
    return program


def test_a_time_limit_is_not_an_optimum() -> None:
    """PuLP calls this "Optimal" (coin-or/pulp issue 711)."""
    outcome = milp.solve(hard(), 0.5)
    assert not outcome.optimal and outcome.remark
    assert outcome.values is None or hard().value(outcome.values) > outcome.bound


def test_values_that_break_a_row_or_a_bound_are_caught() -> None:
    program = milp.Program()
    x = program.columns(2)
    program.row(x, 1.0, least=1.0, most=1.0)
    assert program.broken(np.array([1.0, 0.0])) == ""
    assert "row 0" in program.broken(np.array([1.0, 1.0]))
    assert "column 0 is 2" in program.broken(np.array([2.0, -1.0]))
    assert "column 0 is 0.5" in program.broken(np.array([0.5, 0.5]))


def test_a_solver_prints_nothing_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    milp.solve(hard(), 0.2)
    assert capfd.readouterr().out == ""


def test_an_infeasible_program_has_no_values() -> None:
    program = milp.Program()
    program.row(program.columns(2), 1.0, least=3.0)
    assert milp.solve(program, 5).values is None


def test_a_missing_solver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import pulp

    monkeypatch.setattr(pulp, "listSolvers", lambda onlyAvailable: [])
    with pytest.raises(BadInput, match="HiGHS is not installed.*Try: pip install highspy"):
        milp.solve(hard(), 1)


def test_programs_that_are_too_large_or_not_there_are_refused() -> None:
    with pytest.raises(BadInput, match="no program for objective nodes_touched"):
        solve(chain(0, 4, [0, 0], [2, 2], objective=objectives.find("nodes_touched")), "ilp")
    counts = np.ones((1, 58, 256), dtype=np.int64)
    large = PlacementProblem(
        Windows("train", counts), np.zeros(8, dtype=np.int64), np.full(8, 32), objectives.find("transitions")
    )
    with pytest.raises(DoesNotFit, match="columns; at most"):
        solve(large, "ilp")


def test_a_program_is_refused_by_the_columns_that_it_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for the windows' peaks, of which there is one here, aside."""
    one = PlacementProblem(Windows("train", np.array([[[60, 20, 12, 7]]])), NODE, np.array([2, 2, 1]))
    columns = len(balance_program(one, 0, 1.0)[0].cost) - 1
    monkeypatch.setattr(ilp, "MOST_COLUMNS", columns)
    assert solve(one, "ilp", time_limit=60).objective > 1
    monkeypatch.setattr(ilp, "MOST_COLUMNS", columns - 1)
    with pytest.raises(DoesNotFit, match=f"a program of {columns} columns; at most {columns - 1} are tried"):
        solve(one, "ilp")
