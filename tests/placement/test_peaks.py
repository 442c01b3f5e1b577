"""One placement for the peaks of several windows: the joint bound, and the search that nears it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from moesim.placement import PlacementProblem, Windows, dispatch, judge, plan, solve
from moesim.placement.bounds import balance
from moesim.placement.bounds.peaks import Layer, least_peak
from moesim.placement.loads import imbalance
from moesim.placement.search.anneal import soften
from moesim.placement.search.partitions import deals
from moesim.placement.search.table import pack


def problem(counts: object, ranks: int, slots: int, **options: object) -> PlacementProblem:
    windows = Windows("w", np.asarray(counts, dtype=np.int64)[:, None])
    nodes = np.zeros(ranks, dtype=np.int64)
    return PlacementProblem(windows, nodes, np.full(ranks, slots), **options)  # type: ignore[arg-type]


def best(one: PlacementProblem) -> float:
    """Every number of replicas in every dealing."""
    least, spare = np.inf, one.slots - one.experts
    for extra in product(range(spare + 1), repeat=one.experts):
        if sum(extra) != spare:
            continue
        items = np.repeat(np.arange(one.experts), 1 + np.array(extra))
        for dealt in deals(one.slots_of_rank):
            placement = one.place(items[np.argsort(dealt, kind="stable")][None])
            least = min(least, float(imbalance(one, placement, one.train).mean()))
    return least


def test_more_replicas_than_are_looked_at_one_by_one_are_not_ruled_out() -> None:
    """1.9 fair shares of four ranks, and nine equal experts with the rest: three replicas and everything else beside
    them would take 4 / 3 each, but four or more are nearly even."""
    counts = np.array([[1_900_000, *[233_333] * 9], [1_900_000, *range(233_333, 233_342)]])
    one = problem(counts, 4, 4)
    least = min(solve(one, name).objective for name in ("lpt", "eplb", "flash", "multiwindow"))
    assert balance.joint(one).max() <= least < 1.02


def test_two_windows_that_want_the_same_spare_slot() -> None:
    """Three ranks of one slot, two experts: window 1 is all of expert 0, window 2 all of expert 1. Alone each window
    gets 2 replicas and a peak of 1.5 fair shares; together one of them has 3: mean (3 + 1.5) / 2 = 2.25. The relaxed
    program gives half a slot to each, which is the same."""
    one = problem([[90, 0], [0, 90]], 3, 1)
    assert balance.bounds(one).mean() == pytest.approx(1.5)
    assert balance.joint(one)[0] == pytest.approx(2.25, rel=1e-6)
    assert best(one) == pytest.approx(2.25)


def test_all_load_on_one_expert_that_every_rank_holds_is_even() -> None:
    """8 replicas of the only expert with load, one a rank: 1.0, and no companion weighs anything."""
    counts = np.where(np.arange(32) == 5, 1000, 0)[None].repeat(2, axis=0)
    one = problem(counts, 8, 5)
    assert balance.joint(one)[0] == solve(one, "multiwindow").objective == 1


BY_RULE = {"even": 15, "nearest": 15, "lplb": 5}  # each of its deals is a linear program


@pytest.mark.parametrize(("rule", "seed"), [(rule, seed) for rule, seeds in BY_RULE.items() for seed in range(seeds)])
def test_bound_is_below_the_best_of_all_placements(rule: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    experts, ranks, slots = [(3, 2, 2), (4, 3, 2), (3, 4, 1), (4, 2, 3), (2, 3, 2)][seed % 5]
    counts = random.lognormal(4, 1.2, (3, experts)).astype(np.int64) * (random.random((3, experts)) < 0.9 - seed / 20)
    counts[:, 0] += 1
    one = problem(counts, ranks, slots, dispatch=dispatch.find(rule))
    assert balance.joint(one)[0] <= best(one) * (1 + 1e-9)


def test_companions_count_under_even_shares_alone() -> None:
    """One hot expert on one of two ranks with two slots each; its companion is no lighter than the lightest, 0.2."""
    x = np.array([[1.0, 0.4, 0.4, 0.2]])
    assert least_peak(Layer(x, np.ones(1), 0, 2, 2)).value == pytest.approx(1.2, rel=1e-6)
    assert least_peak(Layer(x, np.ones(1), 0, 1, 2)).value == pytest.approx(1.0, rel=1e-6)


def test_many_ranks_and_few_windows_end_near_the_bound() -> None:
    """A slot a rank: replicas are all there is to choose, and the bound is within a slot's worth of the best."""
    random = np.random.default_rng(0)
    shares = random.lognormal(0, 0.9, (1, 2, 128)) * random.lognormal(0, 0.3, (8, 2, 128))
    windows = Windows("w", (shares * 1000).astype(np.int64))
    one = PlacementProblem(windows, np.arange(160) // 8, np.full(160, 1))
    gap = solve(one, "multiwindow").gap
    assert gap is not None
    assert gap < 0.03


def test_a_plan_for_few_windows_is_never_above_the_packing_it_starts_from() -> None:
    random = np.random.default_rng(1)
    shares = random.lognormal(0, 0.9, (1, 3, 96)) * random.lognormal(0, 0.3, (4, 3, 96))
    one = PlacementProblem(Windows("w", (shares * 1000).astype(np.int64)), np.arange(36) // 8, np.full(36, 3))
    found = judge(one, plan(one, "multiwindow").placement, "multiwindow")
    assert found.objective < judge(one, plan(one, "flash").placement, "flash").objective
    again = plan(one, "multiwindow").placement
    assert (again.slot_expert == found.placement.slot_expert).all()


def test_random_exchanges_go_on_where_the_best_ones_are_stuck() -> None:
    """64 experts and 8 spare slots on 24 ranks, 6 windows: items stay the same and no two of a kind meet on a rank;
    from the exchanges that gain most at once the mean peak falls by another percent, mean of 8 layers."""
    gains = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        counts = 1000 * random.lognormal(0, 0.5, 64) * random.lognormal(0, 0.3, (6, 64))
        one = problem(counts.astype(np.int64), 24, 3)
        x = np.ascontiguousarray(one.train.counts[:, 0].T / (one.train.counts[:, 0].sum(axis=1) / 24))
        stuck = pack(one, x, 1 + (x.mean(axis=1) >= np.sort(x.mean(axis=1))[-8]))
        stuck.lower_peaks(one)
        tried = stuck.copy()
        found = stuck.arranged(one, soften(tried.x, *tried.rule(one)[:4], tried.load, 0.0, 400_000, seed))
        assert sorted(found.slot_item) == list(range(72))
        assert all(len(set(row)) == 3 for row in found.slot_expert.reshape(24, 3))
        gains.append(1 - found.peak() / stuck.peak())
    assert min(gains) >= 0
    assert np.mean(gains) > 0.01


WEIGHED = """
import numpy as np
from moesim.placement.search.anneal import _weigh
load = np.random.default_rng(0).lognormal(0, 0.05, (144, 8))
soft, top, total = np.empty((8, 144)), np.empty(8), np.empty(8)
print([float(_weigh(load, 40.0, soft, top, total)), *total.tolist(), *soft.ravel().tolist()])
"""


def test_soft_peaks_are_the_same_to_the_bit_when_python_runs_them() -> None:
    """numpy's exp and sums are not those of compiled code: one bit, and exchanges go another way."""
    said = [
        subprocess.run([sys.executable, "-c", WEIGHED], env={**os.environ, "MOESIM_KERNELS": kernels},
                       capture_output=True, text=True, check=True).stdout
        for kernels in ("python", "compiled")
    ]  # fmt: skip
    assert said[0] == said[1] and len(json.loads(said[0])) == 9 + 8 * 144
