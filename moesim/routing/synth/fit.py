"""A generator of loads fitted to files of load statistics, for workloads that were not measured.

What changes an expert's load is how long prompts are (prefill) or how much is generated (decode). So layer profiles,
that is sorted shares, rank imbalances and correlations, are interpolated between the files of the phase along the
logarithm of that length, and each layer of the result takes the profile of a random layer near its own depth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import BadInput
from moesim.routing.synth.statistics import LoadStatistics

Floats = npt.NDArray[np.float64]
STEP = 1.5  # files of more similar lengths show their differences, not a trend
DEPTH_JITTER = 2  # layers; neighbours in depth are alike, distant ones are not


def workload_length(name: str) -> float:
    """ "prefill_in2048" -> 2048 prompt tokens, "decode_in500out1500" -> 1500 generated ones. Raises BadInput."""
    match = re.fullmatch(r"(?:prefill_in(\d+)(?:out\d+)?|decode_in\d+out(\d+))", name)
    if match is None:
        raise BadInput(f"{name!r} does not say its lengths", way_out="prefill_in2048 or decode_in500out1500")
    return float(match[1] or match[2])


def fitted_statistics(files: Sequence[LoadStatistics], length: float, seed: int) -> LoadStatistics:
    """Statistics of a workload of `length` tokens, from files of one phase. Raises BadInput without files."""
    if not files:
        raise BadInput("no load statistics to fit to")
    pair, weight = _neighbours(files, length)
    rng = streams.stream(seed, "synth", "fit")
    layers = files[0].layers
    depth = np.clip(np.arange(layers) + rng.integers(-DEPTH_JITTER, DEPTH_JITTER + 1, layers), 0, layers - 1)

    def blend(values: Sequence[Floats]) -> Floats:
        result: Floats = np.exp((1 - weight) * np.log(values[0]) + weight * np.log(values[1]))
        return result

    return LoadStatistics(
        name=f"fitted to {', '.join(sorted({file.name for file in pair}))}",
        levels=files[0].levels,
        quantiles=blend([file.quantiles for file in pair])[depth],
        imbalance={r: blend([file.imbalance[r] for file in pair])[depth] for r in files[0].imbalance},
        neighbour_correlation=(1 - weight) * pair[0].neighbour_correlation + weight * pair[1].neighbour_correlation,
        mean_correlation=float((1 - weight) * pair[0].mean_correlation + weight * pair[1].mean_correlation),
        sigma=blend([file.sigma for file in pair])[depth],
    )


def _neighbours(files: Sequence[LoadStatistics], length: float) -> tuple[tuple[LoadStatistics, LoadStatistics], float]:
    """The files whose lengths enclose `length`, and the weight of the longer: below 0 or above 1 outside them.

    Beyond the measured lengths the trend of the nearest two lengths that differ by half is carried on, one doubling at
    most; what lies further away gets the values of that doubling.
    """
    ordered = sorted(files, key=lambda file: (workload_length(file.name), file.name))
    lengths = np.array([workload_length(file.name) for file in ordered])
    inside = lengths[0] < length < lengths[-1]
    after = int(np.searchsorted(lengths, length)) if inside else 0 if length <= lengths[0] else len(ordered) - 1
    if inside:
        low, high = after - 1, after
    else:
        apart = np.flatnonzero(np.maximum(lengths / lengths[after], lengths[after] / lengths) >= STEP)
        other = int(apart[np.abs(np.log(lengths[apart] / lengths[after])).argmin()]) if len(apart) else after
        low, high = min(after, other), max(after, other)
    span = np.log(lengths[high] / lengths[low])
    reach = np.clip(np.log(length), np.log(lengths[0] / 2), np.log(lengths[-1] * 2))
    return (ordered[low], ordered[high]), float((reach - np.log(lengths[low])) / span) if span > 0 else 0.0
