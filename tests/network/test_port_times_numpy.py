"""The whole-array form of port loads against the compiled pass, to the tick; copies the same."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.network import port_times, port_times_numpy
from moesim.network.copies import _count, _count_at_once


def _coflow(rng: np.random.Generator, late: bool) -> tuple[np.ndarray, ...]:
    lanes, links = int(rng.integers(1, 9)), int(rng.integers(2, 12))
    each = rng.integers(0, 7, lanes)
    flows = int(each.sum())
    path = np.full((flows, 3), -1, dtype=np.int32)
    for row in path:
        hops = int(rng.integers(1, min(3, links) + 1))
        row[:hops] = rng.choice(links, hops, replace=False)
    size = rng.integers(0, 5, flows) * 1_000
    latency = rng.integers(0, 3, flows) * 500_000 if late else np.zeros(0, dtype=np.int64)
    ends = [rng.integers(0, lanes, flows).astype(np.int32) for _ in range(2)]
    slowness = rng.choice([0.0, 13.7, 1e3, 2.5e4], links)
    release = rng.integers(0, 4, lanes) * 1_000_000
    return release, np.r_[0, np.cumsum(each)], *ends, size, path, latency, np.unique(latency), slowness


@pytest.mark.parametrize("late", [False, True], ids=["at once", "with latency"])
@pytest.mark.parametrize("seed", range(60))
def test_both_forms_agree_to_the_tick(seed: int, late: bool) -> None:
    release, ptr, source, target, size, path, latency, steps, slowness = _coflow(np.random.default_rng(seed), late)
    said = []
    for form in (port_times, port_times_numpy):
        scratch = [np.zeros(len(slowness), dtype=np.int64) for _ in range(3)]
        done, arrival = np.zeros((2, len(release)), dtype=np.int64)
        end, spans = form.coflow_times(
            release, 700, ptr, source, target, size, path, latency, steps, slowness, *scratch, done, arrival
        )
        said.append((int(end), done.tolist(), arrival.tolist(), [column.tolist() for column in spans]))
    assert said[0] == said[1]


@pytest.mark.parametrize("seed", range(20))
def test_copies_are_counted_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 6, 50).astype(np.int32)
    target = rng.integers(-1, 6, (50, 4)).astype(np.int32)
    said = []
    for count in (_count, _count_at_once):
        counted = [np.zeros((6, width), dtype=np.int64) for width in (6, 6, 2)]
        count(source, target, np.array([0, 0, 0, 1, 1, 1], dtype=np.int32), *counted)
        said.append([one.tolist() for one in counted])
    assert said[0] == said[1]
