"""A closed loop of one replica by tables: what `serve` does with a Replica on the same clock, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from moesim.errors import BadInput
from moesim.serving.closed_kernel import played
from moesim.serving.closed_queue import EVICTIONS, STEPS, Engine, State
from moesim.serving.metrics import Floats
from moesim.serving.requests import Ints, Requests
from moesim.serving.settings import Settings
from moesim.serving.tabled import Tabled
from moesim.units import from_ps, to_ps

POLICIES: Final = ("decode_first", "prefill_first", "whole_prompts")  # by their number in the kernel

READABLE: Final = {
    "scheduling_policy": "fcfs",
    "prefill_schedule_interval": 1,
    "prefill_decode_interval": 0,
}  # what the kernel plays of these


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
    for key, neutral in READABLE.items():
        if getattr(settings, key) != neutral:
            raise BadInput(f"only the readable loop plays {key}", way_out=f"{neutral}")
    for reason in _refusals(requests, settings, blocks):
        raise BadInput(f"requests are rejected: {reason}")
    state = State.of(
        requests.prompt, requests.output, requests.concurrency, clock.schedulers, blocks, settings.max_num_seqs
    )
    engine = _engine(settings, clock)
    clock.reach(int((requests.prompt + requests.output).max()))
    missing = np.zeros(3, dtype=np.int64)
    while not played(state, engine, *clock.tables, missing):
        clock.learn(missing)
        missing[:] = 0
    steps, evictions = int(state.clock[STEPS]), int(state.at[:, EVICTIONS].sum())
    return Answered(state.sent, state.first, state.ended, requests.output, steps, evictions)


def _refusals(requests: Requests, settings: Settings, blocks: int) -> Iterator[str]:
    """Why some can never run."""
    most, longest = int((requests.prompt + requests.output).max()), int(requests.prompt.max())
    if -(-most // settings.block_size) > blocks:
        yield f"{most} tokens, the KV cache holds {blocks * settings.block_size}"
    if settings.policy == "whole_prompts" and longest > settings.max_num_batched_tokens:
        budget = settings.max_num_batched_tokens
        yield f"a prompt of {longest} tokens, max_num_batched_tokens is {budget} and prompts are not cut"


def _engine(settings: Settings, clock: Tabled) -> Engine:
    """Numbers of the kernel; the plan of the clock has its own part of the host's time."""
    return Engine(
        policy=POLICIES.index(settings.policy),
        budget=settings.max_num_batched_tokens,
        size=settings.block_size,
        held=settings.reserved_output,
        ahead=int(settings.schedule_ahead),
        poll=settings.poll_interval,
        balance=settings.balance_timeout,
        gather=settings.balance_wait,
        host=int(to_ps(settings.host_time)) - int(to_ps(clock.plan.host_seconds)),
        slow=settings.prompt_slowdown,
        least=int(to_ps(settings.eager_time_per_layer)) * clock.plan.model.num_layers,
        graph_batch=settings.graph_batch,
        graph_tokens=settings.graph_tokens,
        front=int(to_ps(settings.frontend_time)),
    )
