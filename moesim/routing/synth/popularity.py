"""How popular experts are: Zipf, log-normal, Dirichlet, or as skewed as measured load statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy

from moesim import streams
from moesim.routing.sources.sampled import place_shares
from moesim.routing.synth.knobs import Popularity
from moesim.routing.synth.statistics import load_statistics

Floats = npt.NDArray[np.float64]
RAREST = 1e-6  # no expert is impossible: a share of zero could not be recovered from counts


def base_shares(popularity: Popularity, layers: int, experts: int, seed: int) -> Floats:
    """[layers, experts] shares with mean 1, each layer in its own random order. Raises BadInput."""
    if popularity.statistics is not None:
        return place_shares(load_statistics(popularity.statistics), layers, experts, seed)
    rng = streams.stream(seed, "synth", "popularity")
    if popularity.zipf is not None:
        raw = np.tile(np.arange(1, experts + 1, dtype=np.float64) ** -popularity.zipf, (layers, 1))
    elif popularity.lognormal is not None:
        grid = scipy.special.ndtri((np.arange(experts) + 0.5) / experts)
        raw = np.tile(np.exp(popularity.lognormal * grid / max(grid.std(), 1e-9)), (layers, 1))
    else:
        raw = rng.dirichlet(np.full(experts, popularity.dirichlet or 1.0), layers)
    shares = rng.permuted(np.maximum(raw / raw.mean(axis=1, keepdims=True), RAREST), axis=1)
    result: Floats = shares / shares.mean(axis=1, keepdims=True)
    return result


def reshuffle(shares: Floats, fraction: float, rng: np.random.Generator) -> Floats:
    """[L, E] -> the shares of a random `fraction` of the experts of each layer dealt anew among them."""
    experts = shares.shape[1]
    number = round(fraction * experts)
    result = shares.copy()
    for layer in range(len(shares)):
        chosen = rng.permutation(experts)[:number]
        result[layer, chosen] = shares[layer, rng.permutation(chosen)]
    return result
