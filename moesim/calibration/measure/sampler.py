"""The sampler: warm up by time, then blocks of samples until the median stands still or the time is up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np

from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.plan import SamplingSection

BLOCK = 10  # samples between two looks at the median
STILL = 2  # looks in a row that must agree


def warm_up(call: Callable[[], object], settle: Callable[[], None], seconds: float, peers: Peers) -> None:
    """Call until `seconds` have passed on every rank; a collective needs all of them to make as many calls."""
    end = time.perf_counter() + seconds
    while True:
        call()
        settle()
        if peers.all(time.perf_counter() >= end):
            return


def collect(sample: Callable[[], float], rules: SamplingSection, budget: float, peers: Peers) -> list[float]:
    """Seconds of each sample, in order; all ranks stop at the same one.

    Stops when the median has moved by no more than `rules.stable` over STILL blocks on every rank, at `rules.most`
    samples, or after `budget` seconds once there are `rules.least`.
    """
    end = time.perf_counter() + budget
    found: list[float] = []
    medians: list[float] = []
    while len(found) < rules.most:
        found += [sample() for _ in range(BLOCK)]
        medians.append(float(np.median(found)))
        enough = len(found) >= rules.least
        if enough and (peers.all(still(medians, rules.stable)) or peers.any(time.perf_counter() >= end)):
            break
    return found


def still(medians: list[float], stable: float) -> bool:
    """Whether the last STILL medians are within `stable` of the one before each."""
    last = medians[-STILL - 1 :]
    moves = [abs(after / before - 1) for before, after in itertools.pairwise(last)]
    return len(moves) == STILL and max(moves) <= stable
