"""Arrivals whose rate moves: as many as the integral of the rate says, where it says."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.serving.arrivals import Wave


def test_a_wave_brings_what_the_integral_of_its_rate_says() -> None:
    """From 2/s to 10/s and back in an hour: 21,600 an hour; more of them in the middle third."""
    wave = Wave.model_validate({"low": "2/s", "high": "10/s", "period": "1 h"})
    at = np.concatenate([wave.seconds(5 * 21_600, np.random.default_rng(seed)) for seed in range(4)])
    phase = at[at < 4 * 3600] % 3600
    assert len(phase) / 16 == pytest.approx(21_600, rel=0.01)
    middle = 6 * 1200 + 4 * 3600 / (2 * np.pi) * np.sqrt(3)  # the integral of 6 - 4 cos over the middle third
    assert np.count_nonzero((phase >= 1200) & (phase < 2400)) / 16 == pytest.approx(middle, rel=0.02)


def test_a_wave_that_does_not_swing_is_a_poisson_process() -> None:
    due = np.cumsum(np.random.default_rng(1).exponential(1.0, 1000))
    found = Wave.model_validate({"low": "5/s", "high": "5/s", "period": "7 s"}).seconds(1000, np.random.default_rng(1))
    assert np.allclose(found, due / 5, rtol=1e-9)
    assert np.all(np.diff(found) >= 0)
