"""What deciding costs, kernel by kernel, against passes counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moesim.routing.routers import Router, RouterInput

Build = Callable[..., Router]
Given = Callable[..., RouterInput]
Noise = Callable[..., Any]
T, E, SCORE, ROW = 1000, 16, 4, 2


def kernels(router: Router, tokens: RouterInput) -> tuple[list[int], list[tuple[int, int, int]]]:
    """(bytes of each kernel that moves some, (m, n, k) of each GEMM) on the only rank."""
    chores = router.chores(tokens, router.route(tokens))
    return [int(each[0]) for each in chores.moved], [(int(m[0]), n, k) for m, n, k in chores.gemms]


def test_a_column_is_read_for_each_digit_and_what_it_gives_is_put_in_order(
    build: Build, given: Given, noise: Noise
) -> None:
    tokens = given(noise(T, E), top_k=2)
    moved, _ = kernels(build("expert_choice"), tokens)
    row = ROW * tokens.hidden
    assert moved == [2 * T * E * SCORE, 2 * T * E * SCORE, 4 * T * E * SCORE, 4 * T * 2 * SCORE, *[2 * 2 * T * row] * 2]


def test_each_choice_of_gshard_takes_a_mask_its_sum_and_a_look(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(T, E), top_k=2)
    moved, _ = kernels(build("gshard_top2", cf=1.0, random_second=False, pad=True), tokens)
    one = T * E * SCORE
    assert moved[:-2] == [2 * one, *[one, 2 * one, one] * 2]
    drawn, _ = kernels(build("gshard_top2", cf=1.0, pad=True), tokens)
    assert len(drawn) == len(moved) + 1


def test_base_mixes_what_an_expert_says_with_what_it_was_given(build: Build, given: Given, noise: Noise) -> None:
    tokens = given(noise(T, E), top_k=2)
    rows = 2 * T * ROW * tokens.hidden
    moved, _ = kernels(build("topk_softmax", score="sigmoid", mixes=True), tokens)
    assert moved[-2:] == [rows, 3 * rows]
    match = 2 * T * SCORE * (E // 2)
    moved, gemms = kernels(build("cosine_xmoe", mixes=True), tokens)
    assert moved[-4:] == [match, 2 * match, match, 3 * rows]
    assert gemms[-1] == (2 * T, E // 2, tokens.hidden), "X-MoE projects the rows again where they arrive"
