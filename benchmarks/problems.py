"""Max-min problems of the benchmarks: one all-to-all on 8-GPU nodes with 8 rails, one flow per pair of GPUs.

Links in order: NVLink up and down of each GPU (450 GB/s), NIC out and in (50 GB/s), then each rail's leaf, up to the
spine and down from it. Traffic stays on a leaf within its rail and crosses the spine between rails; with PXN it first
hops over NVLink to the local GPU on the destination's rail, so that the spine carries nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.streams import stream

NODE = 8  # GPUs, and rails
NVLINK, NIC = 450e9, 50e9  # B/s each way: H100 SXM, ConnectX-7
EXPERTS, TOP_K, TOKENS, ROW = 256, 8, 128, 7168
ZIPF = 0.8  # exponent of expert popularity
PAIR = 4_000_000  # mean bytes of a pair where sizes do not come from tokens


@dataclass(frozen=True)
class Problem:
    """capacity float64[L] B/s; CSR paths; size float64[F] bytes; source, destination int64[F] (GPUs)."""

    name: str
    capacity: npt.NDArray[np.float64]
    ptr: npt.NDArray[np.int64]
    idx: npt.NDArray[np.int32]
    size: npt.NDArray[np.float64]
    source: npt.NDArray[np.int64]
    destination: npt.NDArray[np.int64]


def skewed(gpus: int, ratio: float = 1.0, seed: int = 0) -> Problem:
    """Zipf popularity of the experts on each GPU; every pair's bytes differ, so that no two flows end together."""
    draw = stream(seed, "benchmark", "skewed", gpus)
    spread = draw.lognormal(0.0, 0.5, (gpus, gpus)) * _popularity(max(EXPERTS, gpus), draw).reshape(gpus, -1).sum(
        axis=1
    )
    return problem(f"skewed, {gpus} GPUs, spine {ratio:g}:1", PAIR * spread / spread.mean(), ratio)


def tokens(gpus: int, ratio: float = 1.0, seed: int = 0, pxn: bool = False) -> Problem:
    """Every GPU sends 128 tokens to 8 distinct of 256 experts, one message per choice; sizes are whole rows."""
    draw = stream(seed, "benchmark", "tokens", gpus)
    weight = np.log(_popularity(EXPERTS, draw)) + draw.gumbel(size=(gpus, TOKENS, EXPERTS))
    chosen = np.argpartition(-weight, TOP_K, axis=2)[:, :, :TOP_K] * gpus // EXPERTS
    rows = np.stack([np.bincount(gpu.ravel(), minlength=gpus) for gpu in chosen])
    what = "PXN, " if pxn else ""
    return problem(f"{what}tokens, {gpus} GPUs, spine {ratio:g}:1", ROW * rows.astype(np.float64), ratio, pxn)


def uniform(gpus: int, ratio: float = 1.0) -> Problem:
    """1 MB between every two GPUs: everything of one kind ends together."""
    return problem(f"uniform, {gpus} GPUs, spine {ratio:g}:1", np.full((gpus, gpus), 1e6), ratio)


def problem(name: str, matrix: npt.NDArray[np.float64], ratio: float, pxn: bool = False) -> Problem:
    """float64[G, G] bytes -> the flows of every pair that has any."""
    gpus = len(matrix)
    sent = matrix.copy()
    np.fill_diagonal(sent, 0)
    source, destination = np.nonzero(sent)
    path = (_pxn_path if pxn else _path)(source, destination, gpus)
    leaf = gpus / NODE * NIC / ratio
    capacity = np.repeat([NVLINK, NVLINK, NIC, NIC, leaf, leaf], [gpus] * 4 + [NODE] * 2)
    ptr = np.concatenate(([0], np.cumsum((path >= 0).sum(axis=1))))
    size = sent[source, destination]
    return Problem(name, capacity, ptr, path[path >= 0].astype(np.int32), size, source, destination)


def _path(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], gpus: int) -> npt.NDArray[np.int64]:
    """int64[F, 4]: NVLink inside a node, leaf only within a rail, or over the spine."""
    gone = np.full_like(a, -1)
    near, same_rail = a // NODE == b // NODE, a % NODE == b % NODE
    first, last = np.where(near, a, 2 * gpus + a), np.where(near, gpus + b, 3 * gpus + b)
    up = np.where(near | same_rail, gone, 4 * gpus + a % NODE)
    down = np.where(near | same_rail, gone, 4 * gpus + NODE + b % NODE)
    return np.stack([first, up, down, last], axis=1)


def _pxn_path(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], gpus: int) -> npt.NDArray[np.int64]:
    """int64[F, 4]: over NVLink to the local GPU on the destination's rail, then from NIC to NIC under one leaf."""
    gone = np.full_like(a, -1)
    near = a // NODE == b // NODE
    via = a // NODE * NODE + b % NODE
    hop = (via != a) & ~near
    first, second = np.where(near | hop, a, gone), np.where(near, gpus + b, np.where(hop, gpus + via, gone))
    return np.stack([first, second, np.where(near, gone, 2 * gpus + via), np.where(near, gone, 3 * gpus + b)], axis=1)


def _popularity(count: int, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """float64[count]: Zipf, in random order."""
    return np.asarray(draw.permutation(1.0 / np.arange(1, count + 1) ** ZIPF))
