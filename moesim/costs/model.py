"""CostModel: shape -> seconds, vectorised. A profile and the roofline are two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy.typing as npt

from moesim.costs.communication import CommunicationCost
from moesim.costs.estimate import Estimate
from moesim.costs.shapes import Rows
from moesim.models import Attention, Linear


class CostModel(Protocol):
    """Arguments broadcast; all results are Estimates of the broadcast shape, in seconds on one device.

    kernels: the kernel set that answers, "" if none; backward: op -> how many times its forward time the backward pass
    takes; families: error family -> standard deviation of the logarithm of its error; widens: error family -> how many
    times that beyond the measured hull; communication: algorithm -> CommunicationCost.
    """

    name: str
    device: str
    kernels: str
    backward: Mapping[str, float]
    families: Mapping[str, float]
    widens: Mapping[str, float]
    communication: Mapping[str, CommunicationCost]

    def sustained(self) -> CostModel:
        """The same device after seconds of computing without a pause, as in training: where power was measured to take
        some of the clock, arithmetic is that much slower.
        """

    @property
    def clock_note(self) -> str:
        """What `sustained` changed and who measured it, "" if nothing."""

    def gemm(self, m: npt.ArrayLike, n: int, k: int, dtype: str) -> Estimate:
        """y[m, n] = x[m, k] w[k, n]."""

    def experts(
        self, rows: npt.ArrayLike, hidden: int, inter: int, dtype: str, matrices: int,
        choices: npt.ArrayLike | None = None,
    ) -> Estimate:  # fmt: skip
        """rows int[..., G] of the G experts of a rank -> [...]: their whole FFN as one grouped operator.

        choices [...]: routed rows that pass through the kernel, where other ranks' are among them; default: its own.
        """

    def expert_tile(self, dtype: str) -> int:
        """Rows that the kernel of `experts` computes together: a power of two."""

    def experts_of(
        self, rows: Rows, hidden: int, inter: int, dtype: str, matrices: int, choices: npt.ArrayLike | None = None
    ) -> Estimate:
        """The same from what `rows_of(rows, expert_tile(dtype))` says of the rows, [...]."""

    def attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """The core (no projections) of `requests` sequences with `query` new tokens after `context` cached ones.

        phase "prefill" is causal; in "decode" query is 1. `heads` of the query on this device; dtype of the KV cache.
        """

    def full_attention(
        self, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, heads: int, dtype: str
    ) -> Estimate:
        """The core where each of `query` tokens attends to all of them, as in an encoder: nothing is cached."""

    def latent_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str, weights: str,
    ) -> Estimate:  # fmt: skip
        """The same of latent attention as an engine serves it: with the norms, the rotary embedding and whatever else
        its module does beside the GEMMs, where that was measured. weights: dtype of those GEMMs, among which keys and
        values out of the latent are one; in decode it stands for the absorbed projections.
        """

    def sparse_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        hidden: int, ways: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """The same of attention to the tokens that an indexer picks, with its scores and its picking, of a model
        `hidden` wide, on one of `ways` ranks.
        """

    def recurrence(
        self, phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Linear, ways: int
    ) -> tuple[Estimate, ...]:
        """The kernels of a linear recurrence on one of `ways` ranks, in order: its convolution, and itself."""

    def hyper(self, tokens: npt.ArrayLike, hidden: int, copies: int) -> tuple[Estimate, ...]:
        """The kernels of hyper-connections before a block and behind it, of a residual stream in so many copies."""

    def elementwise(self, moved: npt.ArrayLike) -> Estimate:
        """Kernels that only move `moved` bytes (norms, activations, optimizer)."""

    def host_seconds(self, phase: str, layers: int) -> float:
        """The host's share of a step that no kernel hides."""
