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
    """float64[samples, layers, experts]: mixtures of blocks where tokens are known, else the windows as they are."""
    if windows.tokens is None or windows.edges is None:
        return windows.counts.astype(np.float64)
    size = int(windows.edges[-1]) // windows.num_windows
    blocks = Windows.of_tokens(windows.name, windows.tokens, windows.counts.shape[2], max(size // BLOCKS, 1)).counts
    drawn = random.integers(0, len(blocks), (SAMPLES, BLOCKS))
    return np.stack([blocks[rows].sum(axis=0) for rows in drawn]).astype(np.float64)
