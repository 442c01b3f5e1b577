"""More windows than were recorded: resampled from shorter blocks of tokens.

A load peak of a window is the texts that happen to be in it. A few recorded windows are a poor sample of such
mixtures, and a plan for exactly them does not carry over; blocks drawn with replacement give as many as are wanted.
Source: the block bootstrap, Kuensch, "The Jackknife and the Bootstrap for General Stationary Observations" (1989).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.placement.windows import Windows

Floats = npt.NDArray[np.float64]
BLOCKS = 8  # of a window: 256 tokens of 2,048, about a short text
SAMPLES = 128


def sampled_counts(windows: Windows, random: np.random.Generator) -> Floats:
    """float64[samples, layers, experts]: mixtures of blocks of one recording where tokens are
    known, each recording as often as another; else the windows as they are."""
    if windows.tokens is None or windows.edges is None:
        return windows.counts.astype(np.float64)
    groups = np.zeros(windows.num_windows, dtype=np.int64) if windows.group is None else windows.group
    found = []
    for number, group in enumerate(np.unique(groups)):
        first, stop = np.flatnonzero(groups == group)[[0, -1]] + [0, 1]
        part = windows.only(int(first), int(stop), windows.name)
        samples = SAMPLES // (int(groups.max()) + 1) + (number < SAMPLES % (int(groups.max()) + 1))
        found.append(_of_blocks(part, samples, random))
    return np.concatenate(found)


def _of_blocks(windows: Windows, samples: int, random: np.random.Generator) -> Floats:
    """float64[samples, layers, experts] of one recording."""
    assert windows.tokens is not None and windows.edges is not None
    size = int(windows.edges[-1]) // windows.num_windows
    blocks = Windows.of_tokens(windows.name, windows.tokens, windows.counts.shape[2], max(size // BLOCKS, 1)).counts
    drawn = random.integers(0, len(blocks), (samples, BLOCKS))
    return np.stack([blocks[rows].sum(axis=0) for rows in drawn]).astype(np.float64)
