"""Distances between simulated and measured latencies, by hand and at their limits."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.calibration.distances import Samples, bidirectional, conditional, entropic, gibbs, transport
from moesim.errors import BadInput


def drawn(seed: int) -> Samples:
    """60 cases of one to four octaves, predicted with an error of 30 %."""
    draw = np.random.default_rng(seed)
    measured, shape = draw.lognormal(size=60), draw.integers(1, 5, size=(60, 2)).astype(np.float64)
    return Samples.of(measured, measured * draw.lognormal(sigma=0.3, size=60), shape)


def test_conditions_keep_cases_apart() -> None:
    """Two cases with each other's latencies: nothing to move without conditions, all of it with them."""
    swapped = Samples.of(np.array([1.0, 3.0]), np.array([3.0, 1.0]), np.array([[0.0], [5.0]]))
    assert conditional(swapped, 0.01)["conditional"] == 0
    assert conditional(swapped, 10.0)["conditional"] == pytest.approx(1.0)  # 2 seconds each, the mean is 2


@pytest.mark.parametrize("seed", range(5))
def test_the_limits_of_conditional_transport(seed: int) -> None:
    found = drawn(seed)
    plain = transport(found.measured, found.simulated).wasserstein * found.measured.mean()
    own = found._replace(conditions=np.arange(60.0)[:, None])  # every case has a condition of its own
    assert conditional(found, 1e-9)["conditional"] == pytest.approx(plain)
    assert conditional(own, 1e6)["conditional"] == pytest.approx(np.abs(found.simulated - found.measured).mean())
    by_weight = [conditional(found, weight)["conditional"] for weight in (1e-9, 0.01, 0.1, 1.0, 10.0)]
    assert by_weight == sorted(by_weight)


def test_seeking_is_not_covering() -> None:
    """All simulated latencies are one of the two that were measured: each has a near one, one measured has none."""
    found = bidirectional(Samples.of(np.array([1.0, 3.0]), np.array([1.0, 1.0]), np.zeros((2, 1))), 1e-3)
    assert found["seeks"] == pytest.approx(0) and found["covers"] == pytest.approx(0.5)  # 2 seconds of one in two


@pytest.mark.parametrize("seed", range(5))
def test_the_limits_of_entropic_transport(seed: int) -> None:
    """Wasserstein's distance where it is sharp, that of independent pairs where it is not, and in order between."""
    found = drawn(seed)
    plain = np.abs(np.sort(found.simulated) - np.sort(found.measured)).mean()
    by_epsilon = [entropic(found, epsilon)["entropic"] for epsilon in (0.01, 0.1, 1.0, 1e5)]
    assert by_epsilon == sorted(by_epsilon)
    assert by_epsilon[0] == pytest.approx(plain, rel=0.05) and by_epsilon[-1] == pytest.approx(
        found.cost.mean(), rel=1e-4
    )
    assert gibbs(found, 1e5)["gibbs"] == pytest.approx(found.cost.mean(), rel=1e-3)
    with pytest.raises(BadInput, match="too sharp"):
        entropic(found, 1e-7)


def test_gibbs_weights_by_hand() -> None:
    """Shares 0.5 and 1.5 on both sides: two pairs cost 0 and two cost 1, weighted by exp(-1)."""
    found = gibbs(Samples.of(np.array([1.0, 3.0]), np.array([1.0, 3.0]), np.zeros((2, 1))), 1.0)
    assert found["gibbs"] == pytest.approx(np.exp(-1) / (1 + np.exp(-1))) and found["marginals"] == pytest.approx(0)
