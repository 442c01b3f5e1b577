"""A closed loop of one replica by tables: what `serve` does with a Replica on the same clock, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moesim.errors import BadInput
from moesim.serving.loop_engine import READABLE, engine_of, unplayed_keys
from moesim.serving.loop_kernel import DONE, FULL
from moesim.serving.loop_queue import ENDED_AT, FIRST_AT, PREEMPTED, SENT, SENT_AT, STEPS, State
from moesim.serving.loop_tabled import tabled
from moesim.serving.metrics import Floats
from moesim.serving.requests import Ints, Requests
from moesim.serving.settings import Settings
from moesim.serving.tabled import Tabled
from moesim.units import from_ps, to_ps


@dataclass(frozen=True)
class Answered:
    """When each request was sent, had its first token and its last, int64[requests] ps; tokens of its answer."""

    sent: Ints
    first: Ints
    ended: Ints
    output: Ints
    steps: int
    evictions: int

    @property
    def ttft(self) -> Floats:
        """float64[requests] s."""
        return from_ps(self.first - self.sent)

    @property
    def tpot(self) -> Floats:
        """float64[...] s, of answers of two tokens or more."""
        several = self.output > 1
        found: Floats = from_ps(self.ended - self.first)[several] / (self.output[several] - 1)
        return found


def serve_closed(requests: Requests, settings: Settings, blocks: int, clock: Tabled) -> Answered:
    """Until every request is answered; `blocks` are each scheduler's, prompts share nothing. Raises BadInput where one
    can never run, or for a setting that only `serve` plays.
    """
    for key in unplayed_keys(settings):
        raise BadInput(f"only the readable loop plays {key}", way_out=f"{READABLE[key]}")
    for reason in _refusals(requests, settings, blocks):
        raise BadInput(f"requests are rejected: {reason}")
    state = State.of_requests(
        requests.prompt, requests.output, 1, clock.schedulers, blocks, settings.max_num_seqs
    )  # fmt: skip
    state.clock[SENT] = min(requests.concurrency, len(requests))
    state.of[: requests.concurrency, SENT_AT] = 0
    host = int(to_ps(settings.host_time)) - int(to_ps(clock.plan.host_seconds))  # the plan has its own part of it
    engine = engine_of(settings, clock.plan.model.num_layers, clock.schedulers, blocks, closed=True, host=host)
    clock.reach(int((requests.prompt + requests.output).max()))
    missing = np.zeros(3, dtype=np.int64)
    while (why := tabled(state, engine, *clock.tables, missing)) != DONE:
        if why == FULL:
            state = state.roomier()
            continue
        clock.learn(missing)
        missing[:] = 0
    steps, evictions = int(state.own[0, STEPS]), int(state.of[:, PREEMPTED].sum())
    sent, first, ended = (state.of[:, column].copy() for column in (SENT_AT, FIRST_AT, ENDED_AT))
    return Answered(sent, first, ended, requests.output, steps, evictions)


def _refusals(requests: Requests, settings: Settings, blocks: int) -> Iterator[str]:
    """Why some can never run."""
    most, longest = int((requests.prompt + requests.output).max()), int(requests.prompt.max())
    if -(-most // settings.block_size) > blocks:
        yield f"{most} tokens, the KV cache holds {blocks * settings.block_size}"
    if settings.policy == "whole_prompts" and longest > settings.max_num_batched_tokens:
        budget = settings.max_num_batched_tokens
        yield f"a prompt of {longest} tokens, max_num_batched_tokens is {budget} and prompts are not cut"
