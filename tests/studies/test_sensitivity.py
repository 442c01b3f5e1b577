"""Indices of functions whose indices are known in closed form."""

from __future__ import annotations

import importlib
import math
from statistics import NormalDist

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.studies.sensitivity.method import Floats
from moesim.studies.sensitivity.morris import Morris
from moesim.studies.sensitivity.run import LogNormal
from moesim.studies.sensitivity.sobol import Sobol
from moesim.studies.sensitivity.transport import Transport


def ishigami(shares: Floats) -> Floats:
    """Ishigami, Homma (1990) with a = 7, b = 0.1."""
    x = (2 * shares - 1) * math.pi
    found: Floats = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    return found


def test_morris_finds_the_slopes_of_a_plane_and_the_curve_of_a_product() -> None:
    shares = Morris().shares(3, 10, 0)
    assert len(shares) == 40
    moved = (np.diff(shares.reshape(10, 4, 3), axis=1) != 0).sum(axis=1)
    assert (moved == 1).all()  # in a trajectory each input moves once
    plane = Morris().indices(shares, shares @ np.array([3.0, -1.0, 0.0]), 0)
    assert plane["mu_star"] == pytest.approx([3, 1, 0])
    assert plane["mu"] == pytest.approx([3, -1, 0])
    assert plane["sigma"] == pytest.approx([0, 0, 0], abs=1e-12)
    assert Morris().indices(shares, shares[:, 0] * shares[:, 1], 0)["sigma"][0] > 0.1


def test_sobol_meets_the_closed_form_of_ishigami() -> None:
    shares = Sobol().shares(3, 4096, 0)
    assert len(shares) == 4096 * 5
    found = Sobol().indices(shares, ishigami(shares), 0)
    assert found["first"] == pytest.approx([0.3139, 0.4424, 0.0], abs=0.02)
    assert found["total"] == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.02)
    assert (np.abs(found["first"] - [0.3139, 0.4424, 0.0]) < 2 * found["first_error"] + 1e-3).all()


def test_indices_are_those_of_salib() -> None:
    pytest.importorskip("SALib")
    analyze = {name: importlib.import_module(f"SALib.analyze.{name}").analyze for name in ("morris", "sobol")}
    problem = {"num_vars": 3, "names": ["a", "b", "c"], "bounds": [[0, 1]] * 3}
    few, many = Morris().shares(3, 20, 0), Sobol().shares(3, 1024, 0)
    theirs = analyze["morris"](problem, few, ishigami(few), num_levels=4)
    ours = Morris().indices(few, ishigami(few), 0)
    assert all(ours[name] == pytest.approx(theirs[name]) for name in ("mu_star", "mu", "sigma"))
    a, b, *mixed = ishigami(many).reshape(5, -1)
    theirs = analyze["sobol"](problem, np.stack([a, *mixed, b], axis=1).ravel(), calc_second_order=False)
    ours = Sobol().indices(many, ishigami(many), 0)
    assert ours["first"] == pytest.approx(theirs["S1"]) and ours["total"] == pytest.approx(theirs["ST"])


@pytest.mark.parametrize("method", [Morris(), Sobol(), Transport()])
def test_an_input_that_is_alone_brings_all(method: Morris | Sobol | Transport) -> None:
    shares = method.shares(1, 256, 0)
    found = method.indices(shares, 3 * shares[:, 0], 0)
    assert all(column.shape == (1,) for column in found.values())
    classes = (
        1 - 1 / 256 + (15 / 16) ** 2
    ) / 2  # of a uniform answer in 16 classes: their means move, and their widths
    most = {"mu_star": 3.0, "total": 1.0, "transport": classes}[method.main]
    assert found[method.main][0] == pytest.approx(most, rel=0.02)


@pytest.mark.filterwarnings("error")
def test_an_input_without_effect_has_indices_and_errors_of_zero() -> None:
    shares = Sobol().shares(2, 32, 0)
    found = Sobol().indices(shares, shares[:, 0], 0)
    assert found["total"][1] == found["total_error"][1] == 0
    assert all(np.isfinite(column).all() for column in found.values())


def test_transport_meets_the_closed_form_of_a_sum_of_normals() -> None:
    """Of a sum with share s of its variance in one input: (s + (1 - sqrt(1 - s))^2) / 2."""
    shares = Transport().shares(3, 20_000, 1)
    normal = np.vectorize(NormalDist().inv_cdf)(np.clip(shares, 1e-9, 1 - 1e-9))
    found = Transport().indices(shares, normal @ np.array([2.0, 1.0, 0.0]), 0)
    for number, s in enumerate((0.8, 0.2, 0.0)):
        assert found["transport"][number] == pytest.approx((s + (1 - math.sqrt(1 - s)) ** 2) / 2, abs=0.015)
        assert 2 * found["of_the_mean"][number] == pytest.approx(s, abs=0.015)  # Sobol's first order
    assert found["transport"][2] == pytest.approx(found["noise"][2], abs=0.01)


def test_transport_sees_a_spread_that_leaves_the_mean_and_the_variance_share_says_nothing() -> None:
    shares = Transport().shares(2, 4000, 2)
    found = Transport().indices(shares, (2 * shares[:, 0] - 1) * shares[:, 1], 0)
    assert 2 * found["of_the_mean"][1] < 0.02
    assert found["transport"][1] > 3 * found["noise"][1]


@pytest.mark.parametrize("method", [Morris(), Sobol(), Transport()])
def test_an_answer_that_never_moves_has_indices_of_zero(method: Morris | Sobol | Transport) -> None:
    shares = method.shares(2, 32, 0)
    found = method.indices(shares, np.full(len(shares), 3.0), 0)
    assert found[method.main] == pytest.approx([0, 0])


def test_a_band_is_log_normal_and_numbers_that_a_method_cannot_use_are_refused() -> None:
    assert LogNormal(0.1).at(0.5) == 1
    assert LogNormal(0.1).at(0.9) == pytest.approx(math.exp(0.1 * 1.2816), rel=1e-4)
    with pytest.raises(BadInput, match="no power of two"):
        Sobol().shares(2, 12, 0)
    with pytest.raises(BadInput, match="how moves vary"):
        Morris().shares(2, 1, 0)
    with pytest.raises(BadInput, match="too few"):
        Transport().shares(2, 5, 0)
