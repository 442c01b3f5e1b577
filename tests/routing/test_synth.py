"""Synthetic traces have the knobs they were given: each is fitted back within a stated tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from moesim.routing import RoutingShape, RoutingTrace
from moesim.routing.synth.fit import fitted_statistics, workload_length
from moesim.routing.synth.fit_back import fit_knobs
from moesim.routing.synth.generate import synthesise
from moesim.routing.synth.knobs import Knobs, Popularity
from moesim.routing.synth.shares import contiguous_imbalance
from moesim.routing.synth.statistics import load_statistics, statistics_names
from moesim.routing.synth.tokens import sample_tokens

MakeShape = Callable[..., RoutingShape]


@pytest.fixture
def model(shape: MakeShape) -> RoutingShape:
    return shape("synthetic", tuple(range(12)), 128, 8)


def popular(**one: Any) -> Popularity:
    return Popularity.model_validate(one)


def made(model: RoutingShape, **knobs: Any) -> RoutingTrace:
    return synthesise(Knobs.model_validate({"tokens": 40_000, **knobs}), model, 3)


@pytest.mark.parametrize(
    "knob, value, tolerance, others",
    [
        ("zipf", 0.8, 0.02, {"popularity": {"zipf": 0.8}}),
        ("lognormal", 0.6, 0.02, {"popularity": {"lognormal": 0.6}}),
        ("lognormal", 1.0, 0.02, {"popularity": {"lognormal": 1.0}}),
        ("dirichlet", 2.0, 0.3, {"popularity": {"dirichlet": 2.0}}),
        ("affinity", 0.5, 0.03, {}),
        ("locality", 0.4, 0.02, {}),
        ("token_dependence", 0.5, 0.05, {}),
        ("domain_strength", 0.3, 0.06, {"domains": ("a", "b", "c")}),
        ("mix_amplitude", 0.6, 0.1, {"domains": ("a", "b", "c"), "mix_period": 10, "request_length": 64}),
        ("drift", 0.4, 0.1, {}),
        ("churn", 0.25, 0.05, {"epochs": 4}),
    ],
)
def test_a_knob_is_fitted_back(
    model: RoutingShape, knob: str, value: float, tolerance: float, others: dict[str, Any]
) -> None:
    knobs = others if "popularity" in others else {**others, knob: value}
    found = fit_knobs(made(model, **knobs), int(others.get("epochs", 1)))[knob]
    assert found == pytest.approx(value, abs=tolerance)


def test_knobs_that_were_not_turned_are_fitted_back_as_zero(model: RoutingShape) -> None:
    found = fit_knobs(made(model, domains=("a", "b")))
    for knob in ("affinity", "locality", "token_dependence", "domain_strength", "drift"):
        assert found[knob] == pytest.approx(0, abs=0.05), knob


def test_the_period_of_the_mix_is_found(model: RoutingShape) -> None:
    found = fit_knobs(made(model, domains=("a", "b"), mix_period=8, mix_amplitude=0.8, request_length=64))
    assert found["mix_period"] == pytest.approx(8, rel=0.08)


def test_several_knobs_together(model: RoutingShape) -> None:
    found = fit_knobs(made(model, affinity=0.4, locality=0.3, popularity={"lognormal": 0.8}))
    assert found["affinity"] == pytest.approx(0.4, abs=0.04) and found["locality"] == pytest.approx(0.3, abs=0.03)
    assert found["lognormal"] == pytest.approx(0.8, abs=0.04)


def test_equal_seeds_give_equal_traces_and_a_header_that_says_so(model: RoutingShape) -> None:
    first, second, third = (synthesise(Knobs.model_validate({"tokens": 500}), model, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.expert, second.expert) and not np.array_equal(first.expert, third.expert)
    assert first.header.basis == "synthetic, assumed" and first.header.evidence["knobs"]["tokens"] == 500


def test_a_repeated_token_repeats_all_its_layers(model: RoutingShape) -> None:
    trace = made(model, tokens=1000, locality=1.0)
    assert all((trace.expert[trace.request == r] == trace.expert[trace.request == r][0]).all() for r in range(4))


def test_two_popularities_or_none_are_refused() -> None:
    for wrong in ({}, {"zipf": 1.0, "lognormal": 0.5}):
        with pytest.raises(ValidationError, match="exactly one"):
            popular(**wrong)


def test_sampled_tokens_meet_shares_and_group_limit() -> None:
    share = np.random.default_rng(0).lognormal(0, 0.6, 64)
    found = sample_tokens(share, 6, 8, 3, 20_000, np.random.default_rng(1))
    got = np.bincount(found.ravel(), minlength=64) / len(found)
    group = np.sort(found // 8, axis=1)
    assert np.abs(got / (6 * share / share.sum()) - 1).max() < 0.15
    assert (1 + (np.diff(group, axis=1) != 0).sum(axis=1)).max() <= 3
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize("name", ["decode_in1000out1000", "prefill_in2048", "prefill_in4096"])
def test_a_fit_to_other_files_reproduces_a_file_it_never_saw(name: str, shape: MakeShape) -> None:
    from moesim.routing.sources.sampled import place_shares

    held_out, phase = load_statistics(name), name.split("_")[0]
    others = [load_statistics(n) for n in statistics_names() if n.startswith(phase) and n != name]
    shares = place_shares(fitted_statistics(others, workload_length(name), 0), 58, 256, 0)
    sigma = np.log(shares).std(axis=1)
    assert sigma.mean() == pytest.approx(held_out.sigma.mean(), rel=0.05)
    assert sigma.std() == pytest.approx(held_out.sigma.std(), rel=0.25)
    for ranks in (8, 32, 128):
        found = contiguous_imbalance(shares, ranks).mean()
        assert found == pytest.approx(held_out.imbalance[ranks].mean(), rel=0.10)
    between = np.corrcoef(np.log(shares))
    assert np.diagonal(between, 1).mean() == pytest.approx(held_out.neighbour_correlation.mean(), abs=0.1)
    assert (between.sum() - 58) / (58 * 57) == pytest.approx(held_out.mean_correlation, abs=0.1)
