"""Whole matrices of Muon, against brute force over every number of them and against what its authors count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from moesim.layout import Part
from moesim.models import Gemm
from moesim.step import lower
from moesim.step.optimizer import whole_matrices
from moesim.step.whole import Cut
from moesim.studies.build import Built, build
from moesim.studies.load import load_data
from tests.step.by_hand import DATA, DENSE, EXPERTS, HBM, HEADS, KV, PEAK, SHARED, VOCAB, WIDTH, D, H

SHAPES = some.lists(some.tuples(some.integers(1, 9), some.integers(1, 9)), min_size=1, max_size=8)


def cut(shapes: list[tuple[int, int]], parts: int) -> Cut:
    return Cut.of([Part("some", tuple(Gemm("one", n, k) for n, k in shapes), 1, "bf16")], parts)


def owners(shapes: list[tuple[int, int]], parts: int) -> list[list[int]]:
    """The part of every number of every matrix, one after the other."""
    total = sum(n * k for n, k in shapes)
    part, each, found = iter(range(total)), -(-total // parts), list[list[int]]()
    for n, k in shapes:
        found.append([next(part) // each for _ in range(n * k)])
    return found


@given(SHAPES, some.integers(1, 12))
def test_every_number_has_one_part(shapes: list[tuple[int, int]], parts: int) -> None:
    made, wanted = cut(shapes, parts), owners(shapes, parts)
    rows = {(one, matrix): wanted[matrix].count(one) for matrix in range(len(shapes)) for one in set(wanted[matrix])}
    assert dict(zip(zip(made.part.tolist(), made.matrix.tolist(), strict=True), made.own.tolist(), strict=True)) == rows


@given(SHAPES, some.integers(1, 12))
def test_a_ring_brings_each_part_what_it_lacks(shapes: list[tuple[int, int]], parts: int) -> None:
    """In bf16: all of the matrices that it has a part of, less what it has."""
    made, wanted = cut(shapes, parts), owners(shapes, parts)
    _, to, size = made.sent
    lacks = [sum(2 * (len(one) - one.count(part)) for one in wanted if part in one) for part in range(parts)]
    assert np.bincount(to, size, parts).tolist() == lacks


def test_flops_are_those_of_the_authors() -> None:
    """Jordan: at most 5 x 6 n m m over a matrix of n x m, m <= n, which square ones reach: m / B times 6 n m B, what a
    batch of B tokens takes forward and backward, for each iteration.
    """
    square, wide = cut([(512, 512)], 1), cut([(512, 4096)], 1)
    assert square.flops[0] == 5 * 6 * 512**3
    assert wide.flops[0] == 5 * (4 * 512 * 512 * 4096 + 2 * 512**3) < 5 * 6 * 512 * 512 * 4096
    assert cut([(4096, 512)], 1).flops[0] == wide.flops[0]
    tokens = 1 << 20
    assert square.flops[0] / (6 * 512 * 512 * tokens) == pytest.approx(5 * 512 / tokens)


def test_gathering_is_at_most_a_quarter_of_what_adam_moves() -> None:
    """Liu et al., section 2.3: of each parameter 4 bytes of its gradient and 4 of itself, and at most 2 of matrices, on
    all ranks together; hardly any where ranks have many.
    """
    for matrices in (1, 3, 64, 1000):
        made = cut([(64, 64)] * matrices, 16)
        most = np.bincount(made.sent[0], made.sent[2], 16).max(initial=0) / 2
        assert most <= 2 * 64 * 64  # of matrices at both ends of its part
        assert np.bincount(made.sent[0], made.sent[2], 16).sum() <= 2 * 16 * matrices * 64 * 64
    assert not len(cut([(64, 64)] * 64, 16).sent[0])  # four whole ones each


def trained(**training: Any) -> Built:
    data = {**DATA, "batch": {"phase": "train", "tokens_per_gpu": 64, "context": 16}}
    return build(load_data({**data, "training": {"optimizer": "muon", **training}}, "by hand"), 0)


def muon(**training: Any) -> tuple[np.ndarray, list[str]]:
    """Seconds of each rank in the optimizer, and the names of all tasks."""
    made = trained(**training)
    graph = lower(made.plan, made.batches).graph
    return np.asarray(graph.lane_seconds[graph.lanes(graph.name.index("optimizer"))]), list(graph.name)


def test_an_update_by_hand() -> None:
    """By the roofline: GEMMs of each matrix that the rank has a part of; 26 bytes of its part of the matrices, 30 of
    that of the tables, which have Adam; 6 of whole matrices for their norm; sums of gradients set to zero.
    """
    attention = [((HEADS + 2 * KV) * D, H), (H, HEADS * D)]
    ffn = [[(2 * width, H), (H, width)] for width in (DENSE, SHARED)]
    matrices = [*attention, *attention, *ffn[0], *ffn[1], (EXPERTS, H)]  # in this order, over four ranks
    wanted = owners(matrices, 4)
    own = [*[(2 * WIDTH, H), (H, WIDTH)] * (EXPERTS // 4)]
    dense, tables, experts = (sum(n * k for n, k in some_) for some_ in (matrices, [(VOCAB, H)] * 2, own))

    def gemm(m: int, n: int, k: int) -> float:
        return max(2 * m * n * k / PEAK, 2 * (m * k + n * k + m * n) / HBM)

    def whole(n: int, k: int) -> float:
        short, long = min(n, k), max(n, k)
        return 5 * (gemm(short, short, long) + gemm(short, short, short) + gemm(short, long, short)) + 6 * n * k / HBM

    each = [sum(whole(*one) for one, its in zip(matrices, wanted, strict=True) if part in its) for part in range(4)]
    moved = 26 * (dense / 4 + experts) + 30 * tables / 4 + 2 * (dense + tables + experts)
    seconds, names = muon()
    assert seconds == pytest.approx(np.full(4, max(each) + sum(whole(*one) for one in own) + moved / HBM), rel=1e-6)
    at = [names.index(name) for name in ("dense_reduce_scatter", "dense_matrix_gather", "optimizer")]
    assert at == sorted(at) and "expert_matrix_gather" not in names  # nobody else has a rank's experts


def test_bf16_alone_moves_less() -> None:
    """Without a master copy 8 bytes of it less are read and written, and the parameter itself is read."""
    attention = 2 * (H * (HEADS + 2 * KV) * D + HEADS * D * H)
    dense = attention + 3 * H * DENSE + 3 * H * SHARED + EXPERTS * H + 2 * VOCAB * H
    less = muon()[0] - muon(master=False)[0]
    assert less == pytest.approx(np.full(4, 6 * (dense / 4 + EXPERTS // 4 * 3 * H * WIDTH) / HBM), rel=1e-6)


@pytest.mark.parametrize("stage", [0, 1])
def test_who_keeps_every_matrix_whole_is_sent_none(stage: int) -> None:
    """Only where momentum lies in parts has anybody to gather it."""
    plan = replace(trained().plan, zero=stage)
    whole = whole_matrices(plan)
    assert whole is not None and (whole.sent_bytes > 0) == (stage > 0)
    assert len(list(whole.gathered(plan.fabric))) == stage  # experts are one rank's alone
