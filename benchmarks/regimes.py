"""Four regimes of load and a sequence of windows of them, as `python -m benchmarks.regimes` drew data/regimes.npz.

Sorted shares are those of four of the shipped statistics (workloads/routing/dsv3_load_statistics.json); which expert is
hot in two regimes at once follows the correlation of log shares that is published there between the files. Drawn once,
seed 0; each window multiplies every share by log-normal noise of 5 %.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from moesim import shipped
from moesim.routing.synth.shares import shares_from_quantiles
from moesim.routing.synth.statistics import load_statistics

FILES = ("decode_in1000out1000", "decode_in2000out100", "prefill_in1024", "prefill_in500out1500")
ORDER, EXPERTS, CHOICES, NOISE = "ABACBDCADB", 256, 1 << 20, 0.05
PATH = Path(__file__).parent / "data" / "regimes.npz"


def regimes(random: np.random.Generator) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """float64[4, layers, experts] shares with mean 1."""
    told = json.loads(shipped.shipped("workloads", "routing", "dsv3_load_statistics.json").read_text())["file_to_file"]
    alike = np.array([[told[one][other]["log_share"] for other in FILES] for one in FILES])
    root = np.linalg.cholesky(alike)
    given = [load_statistics(name) for name in FILES]
    layers = given[0].layers
    score = np.einsum("ij,jle->ile", root, random.standard_normal((len(FILES), layers, EXPERTS)))
    rank = score.argsort(axis=2).argsort(axis=2)
    shares = np.stack([shares_from_quantiles(one.levels, one.quantiles, EXPERTS) for one in given])
    return np.take_along_axis(shares, rank, axis=2)


def main() -> None:
    """Write the file."""
    random = np.random.default_rng(0)
    drawn = regimes(random)
    rows = np.stack([drawn["ABCD".index(letter)] for letter in ORDER])
    rows = rows * random.lognormal(0.0, NOISE, rows.shape)
    counts = np.rint(rows / rows.sum(axis=2, keepdims=True) * CHOICES).astype(np.uint32)
    np.savez_compressed(PATH, counts=counts)
    print(PATH, counts.shape)


if __name__ == "__main__":
    main()
