"""The series of a run: what is in a window by hand, and sums that are the run's."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.serving.metrics import ttft
from moesim.serving.series import WINDOWS, series
from tests.serving.systems import MS, by_tokens, requests_of, served
from tests.serving.test_fleet import scaling
from tests.serving.test_laws import crowd


def test_one_request_by_hand() -> None:
    """32 steps of 1 ms, a token each: one in every window, the first token in the first."""
    rows = series(served(requests_of(0, 10, WINDOWS), lambda batch: MS))
    assert [row["steps"] for row in rows] == [1] * WINDOWS
    assert [row["end_s"] for row in rows] == pytest.approx(np.arange(1, WINDOWS + 1) * 1e-3)
    assert rows[0]["mean_ttft_ms"] == pytest.approx(1.0) and "mean_ttft_ms" not in rows[1]
    assert rows[-1]["answered"] == 1 and rows[-1]["running"] == 0


def test_replicas_that_are_paid_over_time() -> None:
    """A second one is started by the look of 10 ms and let go by that of 100 ms, of 320 ms in windows of 10 ms."""
    at, output = [0] * 6 + [101 * MS], [100] * 6 + [219]
    rows = series(served(requests_of(at, 1, output), lambda batch: MS, replicas=2, scaling=scaling(most=2)))
    assert [row["replicas"] for row in rows] == [2] * 9 + [1] * 23


@pytest.mark.parametrize("replicas", [1, 3])
def test_windows_add_up_to_the_run(replicas: int) -> None:
    found = served(requests_of(*crowd(3)), by_tokens, replicas=replicas, schedulers=2)
    rows, many = series(found), len(found.book.requests)
    assert sum(row["steps"] for row in rows) == sum(one.steps for one in found.replicas)
    assert sum(row["sent"] for row in rows) == sum(row["answered"] for row in rows) == many
    assert max(row["running"] + row["waiting"] for row in rows) <= many
    assert min(row["kv_blocks"] for row in rows) >= 0 and rows[-1]["running"] == 0
    told = ttft(found.book, np.arange(many)) * 1e3
    means = [row["mean_ttft_ms"] for row in rows if "mean_ttft_ms" in row]
    assert told.min() <= min(means) and max(means) <= told.max()
